//! Draws numbers as SVG paths. The page has the words around a drawing, because a browser stretches the drawing.

use std::fmt::Write;

/// The width and height of a drawing, in its own units.
pub const WIDTH: f64 = 600.0;
pub const HEIGHT: f64 = 100.0;

/// The path of a line, with the newest value at the right end. `points` values fill the width; `top` is the value at the upper edge.
pub fn line(values: &[f64], points: usize, top: f64) -> String {
    let mut path = String::new();
    let step = WIDTH / (points.max(2) - 1) as f64;
    let first = points.saturating_sub(values.len());
    for (at, value) in values.iter().enumerate() {
        let (x, y) = ((first + at) as f64 * step, HEIGHT - HEIGHT * (value / top).clamp(0.0, 1.0));
        let verb = if at == 0 { 'M' } else { 'L' };
        write!(path, "{verb}{x:.1} {y:.1}").expect("writing to a String cannot fail");
    }
    path
}

/// The path of the area between the line and the lower edge.
pub fn area(values: &[f64], points: usize, top: f64) -> String {
    if values.is_empty() {
        return String::new();
    }
    let left = WIDTH / (points.max(2) - 1) as f64 * points.saturating_sub(values.len()) as f64;
    format!("{}L{WIDTH:.1} {HEIGHT:.1}L{left:.1} {HEIGHT:.1}Z", line(values, points, top))
}

/// A round number that no value exceeds.
pub fn top(values: impl Iterator<Item = f64>) -> f64 {
    let max = values.fold(0.0, f64::max);
    let mut unit = 1.0;
    loop {
        for round in [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0].map(|digit| digit * unit) {
            if max <= round || unit > 1e18 {
                return round;
            }
        }
        unit *= 10.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_at_the_right_and_the_most_at_the_top() {
        assert_eq!(line(&[0.0, 5.0, 10.0], 3, 10.0), "M0.0 100.0L300.0 50.0L600.0 0.0");
        assert_eq!(line(&[10.0], 3, 10.0), "M600.0 0.0");
        assert_eq!(area(&[10.0, 0.0], 3, 10.0), "M300.0 0.0L600.0 100.0L600.0 100.0L300.0 100.0Z");
        assert_eq!((line(&[], 3, 1.0), area(&[], 3, 1.0)), (String::new(), String::new()));
    }

    #[test]
    fn the_top_is_round() {
        let of = |max: f64| top([0.0, max].into_iter());
        assert_eq!(
            [of(0.0), of(1.0), of(11.0), of(40.0), of(81.0), of(123_456.0)],
            [1.0, 1.0, 15.0, 40.0, 100.0, 150_000.0]
        );
        assert!(of(f64::INFINITY).is_finite());
    }
}
