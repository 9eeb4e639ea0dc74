//! Lines drawn as SVG: numbers in, path data out. Words around a drawing are the page's, for a drawing is stretched to
//! the width there is and letters must not be.

use std::fmt::Write;

/// The drawing's own units; the page stretches them.
pub const WIDTH: f64 = 600.0;
pub const HEIGHT: f64 = 100.0;

/// The points of a line, newest at the right end; `places` of them fill the width. `top` is drawn at the upper edge.
pub fn line(values: &[f64], places: usize, top: f64) -> String {
    let mut path = String::new();
    let step = WIDTH / (places.max(2) - 1) as f64;
    let first = places.saturating_sub(values.len());
    for (at, value) in values.iter().enumerate() {
        let (x, y) = ((first + at) as f64 * step, HEIGHT - HEIGHT * (value / top).clamp(0.0, 1.0));
        let verb = if at == 0 { 'M' } else { 'L' };
        write!(path, "{verb}{x:.1} {y:.1}").expect("writing to a String cannot fail");
    }
    path
}

/// The same, closed along the lower edge.
pub fn area(values: &[f64], places: usize, top: f64) -> String {
    if values.is_empty() {
        return String::new();
    }
    let left = WIDTH / (places.max(2) - 1) as f64 * places.saturating_sub(values.len()) as f64;
    format!("{}L{WIDTH:.1} {HEIGHT:.1}L{left:.1} {HEIGHT:.1}Z", line(values, places, top))
}

/// A round number that nothing exceeds.
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
