//! The graph: panels one above the other, each with a figure over time, and a mark for each event.

use super::happens::Event;
use super::samples::{Column, Record};

const WIDTH: f64 = 800.0;
/// The left and right edges of the panels.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 784.0;
/// The heights of a title, its panel, and the gap below.
const TITLE: f64 = 22.0;
const PANEL: f64 = 86.0;
const GAP: f64 = 12.0;
/// The height of the legend of events, above the first panel.
const TOP: f64 = 52.0;
const BOTTOM: f64 = 26.0;

/// Colours for light and dark mode, with a background of its own.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#333}\
.ground{fill:#fff}.grid{stroke:#ddd;fill:none}.line{stroke-width:1.5;fill:none;stroke-linejoin:round}\
.a{stroke:#1f6feb}.b{stroke:#bc4c00}.ta{fill:#1f6feb}.tb{fill:#bc4c00}\
.mark{stroke:#999;stroke-dasharray:1 3}\
@media(prefers-color-scheme:dark){text{fill:#ccc}.ground{fill:#161b22}.grid{stroke:#333}\
.a{stroke:#79b8ff}.b{stroke:#ffa657}.ta{fill:#79b8ff}.tb{fill:#ffa657}.mark{stroke:#777}}";

struct Panel {
    title: &'static str,
    /// Name and values, one for each sample.
    lines: Vec<(&'static str, Vec<f64>)>,
    /// Digits after the decimal point.
    digits: usize,
}

pub fn drawn(record: &Record) -> String {
    let panels = panels(record);
    let height = TOP + panels.len() as f64 * (TITLE + PANEL + GAP) + BOTTOM;
    let times: Vec<f64> = record.column(Column::Milliseconds).map(|at| at as f64).collect();
    let end = times.last().copied().unwrap_or(1.0).max(1.0);
    let x = |at: f64| LEFT + (RIGHT - LEFT) * at / end;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Memory, descriptors, spool and processor time of a relay over the run\">\n\
         <style>{STYLE}</style>\n<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n"
    );
    svg += &happened(record, x, height - BOTTOM);
    for (number, panel) in panels.iter().enumerate() {
        let top = TOP + number as f64 * (TITLE + PANEL + GAP);
        svg += &panel.drawn(top, &times, x);
    }
    let minutes = end / 60_000.0;
    let step = [0.1, 0.5, 1.0, 5.0, 10.0, 60.0].into_iter().find(|step| minutes / step <= 8.0).unwrap_or(120.0);
    for tick in 0..=(minutes / step) as usize {
        let minute = tick as f64 * step;
        let (at, y) = (x(minute * 60_000.0), height - BOTTOM + 10.0);
        let unit = if tick == 0 { " min" } else { "" };
        svg += &format!("<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\">{minute}{unit}</text>\n");
    }
    svg + "</svg>\n"
}

fn panels(record: &Record) -> Vec<Panel> {
    let mib = |column| record.column(column).map(|kib| kib as f64 / 1024.0).collect();
    let plain = |column| record.column(column).map(|value| value as f64).collect();
    let spool = record.column(Column::Spool).map(|bytes| bytes as f64 / 1024.0 / 1024.0).collect();
    let panel = |title, lines, digits| Panel { title, lines, digits };
    vec![
        panel("memory, MiB", vec![("resident", mib(Column::Rss)), ("its own", mib(Column::Anon))], 0),
        panel(
            "descriptors and threads",
            vec![("descriptors", plain(Column::Descriptors)), ("threads", plain(Column::Threads))],
            0,
        ),
        panel("spool on the disk, MiB", vec![("", spool)], 0),
        panel("processor, % of one", vec![("", processor(record))], 0),
    ]
}

/// Processor use between each sample and the previous one, in percent.
fn processor(record: &Record) -> Vec<f64> {
    let mut last = [0, 0];
    let between = record.samples.iter().map(|sample| {
        let now = [sample[Column::Milliseconds as usize], sample[Column::Cpu as usize]];
        let [time, used] = [0, 1].map(|at| (now[at] - last[at]) as f64);
        // The first sample has no previous one, so it gives no rate.
        let is_first = std::mem::replace(&mut last, now) == [0, 0];
        if is_first || time == 0.0 { None } else { Some(100.0 * used / time) }
    });
    let mut values: Vec<f64> = between.map(Option::unwrap_or_default).collect();
    if let [first, second, ..] = &mut values[..] {
        *first = *second;
    }
    values
}

impl Panel {
    fn drawn(&self, top: f64, times: &[f64], x: impl Fn(f64) -> f64) -> String {
        let (base, digits) = (top + TITLE + PANEL, self.digits);
        let most = self.lines.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
        let most = round_up(most);
        let y = |value: f64| base - PANEL * value / most;
        let mut svg = format!("<text x=\"{LEFT}\" y=\"{}\">{}</text>\n", top + TITLE - 7.0, self.title);
        for share in [0.0, 0.5, 1.0] {
            let (value, at) = (most * share, y(most * share));
            svg += &format!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>\n");
            svg += &format!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.digits$}</text>\n",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for ((name, values), class) in self.lines.iter().zip(["a", "b"]) {
            let points: Vec<String> =
                times.iter().zip(values).map(|(at, value)| format!("{:.1} {:.1}", x(*at), y(*value))).collect();
            svg += &format!("<path class=\"line {class}\" d=\"M{}\"/>\n", points.join("L"));
            if let Some(last) = values.last().filter(|_| !name.is_empty()) {
                let at = y(*last) - 5.0;
                svg += &format!(
                    "<text class=\"t{class}\" x=\"{RIGHT}\" y=\"{at:.1}\" text-anchor=\"end\">{name}</text>\n"
                );
            }
        }
        svg
    }
}

/// A letter and a vertical line for each event, and the legend.
fn happened(record: &Record, x: impl Fn(f64) -> f64, bottom: f64) -> String {
    let meanings: Vec<String> = Event::ALL.iter().map(|event| format!("{} {event}", letter(*event))).collect();
    let mut svg = String::new();
    for (line, y) in meanings.chunks(meanings.len().div_ceil(2)).zip([16, 32]) {
        svg += &format!("<text x=\"{LEFT}\" y=\"{y}\">{}</text>\n", line.join(" · "));
    }
    for (at, event) in &record.events {
        let at = x(*at as f64);
        svg += &format!("<path class=\"mark\" d=\"M{at:.1} {TOP}V{bottom}\"/>\n");
        svg += &format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", TOP - 2.0, letter(*event));
    }
    svg
}

fn letter(event: Event) -> char {
    match event {
        Event::CollectorKilled => 'k',
        Event::CertificatesRenewed => 'c',
        Event::Reloaded => 'h',
        Event::DiskFrozen => 'f',
        Event::NameMoved => 'n',
        Event::AnswersRotate => 'a',
        Event::CollectorSlow => 's',
        Event::CollectorRestarted => 'r',
    }
}

/// Rounds up to a number that is readable on the axis, also when halved.
fn round_up(most: f64) -> f64 {
    let mut step = 1.0;
    loop {
        for factor in [2.0, 4.0, 6.0, 10.0] {
            if most <= step * factor {
                return step * factor;
            }
        }
        step *= 10.0;
    }
}
