//! The status page: one `Status` in, one HTML page out, with its style, its drawing and its few lines of script inside.
//! Nothing is fetched from elsewhere, and the policy sees to it.
//!
//! Whatever comes from outside (names, addresses, the words of errors) goes through [`Text`]; markup is only what stands
//! in this file.

use std::fmt::{self, Display, Write};

use super::draw;
use super::status::{Container, Forward, Listener, Loss, State, Status};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a browser may load for the page: this style and this script, and the page itself again. The hashes are those of
/// page.css and page.js; a test says which they must be.
pub const POLICY: &str = "default-src 'none'; style-src 'sha256-//3VGXaDdDFrxEBgN1aRZdbNS7M1G41SmKtuia52Ftk='; script-src 'sha256-nQ+qgrjS2jC9xywkyou2pptt/7g4QSfJscOkXJm9YEY='; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Points of a drawn line: five minutes of two seconds.
const PLACES: usize = 150;

/// Text from outside, made harmless.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The whole page.
pub fn render(status: &Status) -> String {
    let host = Text(&status.hostname);
    let parts = [
        head(status),
        figures(status),
        charts(status),
        forwards(&status.forwards),
        format!("<div class=\"pair\">{}{}</div>\n", listeners(&status.listeners), containers(status)),
        losses(&status.losses),
        foot(status),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>logferry on {host}</title>\n\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n\
         <p id=\"away\" role=\"status\" hidden>The relay does not answer. What is below is what it said last.</p>\n\
         <main>\n{}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        parts.concat()
    )
}

fn head(status: &Status) -> String {
    let host = Text(&status.hostname);
    let (class, word) = match status.ready {
        true => ("good", "Ready"),
        false => ("bad", "Not ready"),
    };
    let mut html = format!(
        "<header><h1>logferry <span>on <bdi>{host}</bdi></span></h1>\
         <p class=\"state {class}\">{word}</p>{}<p class=\"up\">up {}</p></header>\n",
        away(&status.forwards),
        span(status.uptime_seconds)
    );
    if let Some(trouble) = &status.spool.trouble {
        html += &format!("<p class=\"alarm\"><strong>The spool cannot be written.</strong> {}</p>\n", Text(trouble));
    }
    html
}

/// Says when not all collectors are connected.
fn away(forwards: &[Forward]) -> String {
    let away = forwards.iter().filter(|forward| forward.state != State::Connected).count();
    match (away, forwards.len()) {
        (0, _) => String::new(),
        (1, 1) => "<p class=\"state bad\">Collector away</p>".to_owned(),
        (away, all) => format!("<p class=\"state bad\">{away} of {all} collectors away</p>"),
    }
}

fn figures(status: &Status) -> String {
    let spool = &status.spool;
    let percent = (spool.bytes * 100).checked_div(spool.max_bytes).unwrap_or(0).min(100);
    let oldest = status.oldest_waiting().map_or("\u{2013}".to_owned(), span);
    let held = match spool.held {
        0 => String::new(),
        held => format!("<small>{} held back</small>", grouped(held)),
    };
    format!(
        "<dl class=\"figures\">\
         <div><dt>In</dt><dd>{} <small>/s</small></dd></div>\
         <div><dt>Out</dt><dd>{} <small>/s</small></dd></div>\
         <div><dt>Waiting</dt><dd>{} <small>{}</small>{held}</dd></div>\
         <div><dt>Oldest waiting</dt><dd>{oldest}</dd></div>\
         <div class=\"wide\"><dt>Spool</dt><dd>{} <small>of {}, {percent} %</small></dd>\
         <dd><svg class=\"meter\" viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <path d=\"M0 .5H100\"/><path class=\"in\" d=\"M0 .5H{percent}\"/></svg></dd></div>\
         </dl>\n",
        rate(status.received_per_second),
        rate(status.delivered_per_second),
        grouped(status.waiting()),
        counted(status.waiting(), "line"),
        size(spool.bytes),
        size(spool.max_bytes),
    )
}

fn charts(status: &Status) -> String {
    let past = &status.history;
    let (received, delivered) = (&past.received_per_second, &past.delivered_per_second);
    let top = draw::top(received.iter().chain(delivered).copied());
    let traffic = format!(
        "<path class=\"in\" d=\"{}\"/><path class=\"out\" d=\"{}\"/>",
        draw::line(received, PLACES, top),
        draw::line(delivered, PLACES, top)
    );
    let waiting: Vec<f64> = past.waiting.iter().map(|lines| *lines as f64).collect();
    let most = draw::top(waiting.iter().copied());
    let depth = format!(
        "<path class=\"area\" d=\"{}\"/><path class=\"in\" d=\"{}\"/>",
        draw::area(&waiting, PLACES, most),
        draw::line(&waiting, PLACES, most)
    );
    let legend = "Messages a second: <span class=\"key in\">in</span> <span class=\"key out\">out</span>";
    let sum = format!(
        "in {}, out {}, lines waiting {}",
        rate(status.received_per_second),
        rate(status.delivered_per_second),
        grouped(status.waiting())
    );
    format!(
        "<div class=\"charts\">{}{}</div>\n",
        chart(legend, &traffic, top, &sum),
        chart("Lines waiting", &depth, most, &sum)
    )
}

fn chart(legend: &str, paths: &str, top: f64, says: &str) -> String {
    format!(
        "<figure><figcaption>{legend}<span class=\"top\">{}</span></figcaption>\
         <svg viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"The last 5 minutes; now: {says}\">\
         <path class=\"grid\" d=\"M0 0H600M0 50H600M0 100H600\"/>{paths}</svg>\
         <p class=\"axis\"><span>5 min ago</span><span>now</span></p></figure>",
        rate(top),
        draw::WIDTH,
        draw::HEIGHT
    )
}

fn forwards(forwards: &[Forward]) -> String {
    let columns = ["Collector", "State", "Address", "TTL left", "Waiting", "Oldest", "Delivered"];
    let rows: String = forwards.iter().map(forward).collect();
    section("Collectors", &columns, &rows)
}

fn forward(forward: &Forward) -> String {
    let to: Vec<String> = forward.to.iter().map(|to| format!("<bdi>{}</bdi>", Text(to))).collect();
    let (class, word) = match forward.state {
        State::Connected => ("good", "Connected"),
        State::Connecting => ("bad", "Connecting"),
        State::StandsStill => ("bad", "Stands still"),
        State::WaitsToRetry => ("bad", "Waits to retry"),
    };
    let address = match (&forward.address, &forward.target) {
        (Some(address), _) => Text(address).to_string(),
        (None, Some(_)) => "this machine".to_owned(),
        (None, None) => NONE.to_owned(),
    };
    let trouble = match &forward.last_error {
        Some(error) => format!(
            "<tr class=\"note\"><td colspan=\"7\">Last error, {} ago: <bdi>{}</bdi></td></tr>",
            span(error.seconds_ago),
            Text(&error.text)
        ),
        None => String::new(),
    };
    format!(
        "<tbody><tr><th scope=\"row\"><bdi>{}</bdi> <small>{}</small></th>\
         <td data-is=\"State\"><span class=\"state {class}\">{word}</span> <small>for {}</small></td>{}{}{}{}{}</tr>{trouble}\
         </tbody>\n",
        Text(&forward.name),
        to.join(", else "),
        span(forward.state_seconds),
        cell("Address", &address),
        number("TTL left", &forward.ttl_left_seconds.map_or(NONE.to_owned(), span)),
        number("Waiting", &grouped(forward.waiting)),
        number("Oldest", &forward.oldest_waiting_seconds.map_or(NONE.to_owned(), span)),
        number("Delivered", &grouped(forward.delivered)),
    )
}

fn listeners(listeners: &[Listener]) -> String {
    let row = |listener: &Listener| {
        let name = listener.name.as_deref().map_or(String::new(), |name| format!(" <small>{}</small>", Text(name)));
        format!(
            "<tbody><tr><th scope=\"row\"><bdi>{}</bdi>{name}</th>{}{}{}</tr></tbody>\n",
            Text(&listener.address),
            number("Connections", &grouped(listener.connections)),
            number("Received", &grouped(listener.received)),
            number("Bytes", &size(listener.bytes)),
        )
    };
    let rows: String = listeners.iter().map(row).collect();
    section("Listeners", &["Listener", "Connections", "Received", "Bytes"], &rows)
}

fn containers(status: &Status) -> String {
    if status.containers.is_empty() {
        return "<section><h2>Busiest containers</h2><p class=\"none\">None has said anything yet.</p></section>\n"
            .to_owned();
    }
    let row = |name: &str, received, limited| {
        let mut cells = number("Messages", &grouped(received));
        if limited > 0 {
            cells = number(
                "Messages",
                &format!("{} <small>{} over rate-limit</small>", grouped(received), grouped(limited)),
            );
        }
        format!("<tbody><tr><th scope=\"row\">{name}</th>{cells}</tr></tbody>\n")
    };
    let name = |container: &Container| format!("<bdi>{}</bdi>", Text(&container.name));
    let each = status.containers.iter().map(|container| row(&name(container), container.received, container.limited));
    let mut rows: String = each.collect();
    if status.other_containers > 0 {
        rows += &row("those not counted apart", status.other_containers, 0);
    }
    section("Busiest containers", &["Container", "Messages"], &rows)
}

fn losses(losses: &[Loss]) -> String {
    let row = |loss: &Loss| {
        let place = loss.place.as_deref().map_or(NONE.to_owned(), |place| format!("<bdi>{}</bdi>", Text(place)));
        format!(
            "<tbody><tr><th scope=\"row\">{}</th>{}{}{}</tr></tbody>\n",
            loss.reason,
            number("Count", &format!("{} <small>{}</small>", grouped(loss.count), loss.unit)),
            cell("Where", &place),
            cell("Why", loss.says),
        )
    };
    let (zero, some): (Vec<&Loss>, Vec<&Loss>) = losses.iter().partition(|loss| loss.count == 0);
    let mut reasons: Vec<&str> = zero.iter().map(|loss| loss.reason).collect();
    reasons.retain(|reason| !some.iter().any(|loss| loss.reason == *reason));
    reasons.dedup();
    reasons.sort_unstable();
    reasons.dedup();
    let zero = format!("<p class=\"none\">Never since the start: {}.</p>", reasons.join(", "));
    if some.is_empty() {
        return format!("<section><h2>Dropped</h2><p>Nothing was dropped.</p>{zero}</section>\n");
    }
    let rows: String = some.into_iter().map(row).collect();
    let table = section("Dropped", &["Reason", "Count", "Where", "Why"], &rows);
    if reasons.is_empty() { table } else { table.replace("</section>", &format!("{zero}</section>")) }
}

fn foot(status: &Status) -> String {
    format!(
        "<footer><p>logferry {} \u{b7} as of <time>{}</time></p>\
         <p><a href=\"status\">JSON</a> \u{b7} <a href=\"metrics\">Metrics</a></p></footer>\n",
        status.version,
        Text(&status.time)
    )
}

const NONE: &str = "\u{2013}";

fn section(title: &str, columns: &[&str], rows: &str) -> String {
    let numeric =
        ["TTL left", "Waiting", "Oldest", "Delivered", "Connections", "Received", "Bytes", "Messages", "Count"];
    let heads: String = columns
        .iter()
        .map(|column| {
            let class = if numeric.contains(column) { " class=\"n\"" } else { "" };
            format!("<th scope=\"col\"{class}>{column}</th>")
        })
        .collect();
    format!("<section><h2>{title}</h2><table><thead><tr>{heads}</tr></thead>\n{rows}</table></section>\n")
}

/// `html` is markup.
fn cell(column: &str, html: &str) -> String {
    format!("<td data-is=\"{column}\"><span>{html}</span></td>")
}

fn number(column: &str, html: &str) -> String {
    format!("<td class=\"n\" data-is=\"{column}\"><span>{html}</span></td>")
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number a second, with a decimal where it matters.
fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 && rate.fract() != 0.0 { format!("{rate:.1}") } else { grouped(rate.round() as u64) }
}

fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A time in the two units that say most.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |many: u64, unit: &str, rest: u64, smaller: &str| match rest {
        0 => format!("{many} {unit}"),
        _ if many >= 10 => format!("{many} {unit}"),
        rest => format!("{many} {unit} {rest} {smaller}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => two(minutes, "min", seconds % 60, "s"),
        (0, _, _) => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests;
