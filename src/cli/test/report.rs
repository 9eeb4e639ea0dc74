//! The differences as text for people: on one line, or line by line if a text has several lines. Control characters are
//! escaped, so that a message cannot drive the terminal.

use super::compare::Difference;
use crate::config::Test;
use crate::record::each_displayable;

/// SGR codes (ECMA-48 8.3.117).
const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";

/// Lines that are shown before and after a difference.
const CONTEXT: usize = 2;
/// If two texts have a common start of at least this many characters, a mark shows where they differ.
const LONG: usize = 16;

pub fn failed(test: &Test, differences: &[Difference], coloured: bool) -> String {
    let mut report = Report { out: String::new(), coloured };
    report.styled(RED, "failed");
    report.out.push_str(": ");
    report.styled(BOLD, &displayable(&test.name));
    report.out.push_str(&format!(" ({})\n", displayable(&test.place)));
    for difference in differences {
        report.difference(difference);
    }
    report.out.push('\n');
    report.out
}

pub fn summary(tests: usize, failed: usize, coloured: bool) -> String {
    let mut report = Report { out: String::new(), coloured };
    let said = format!("{tests} {}, {failed} failed", if tests == 1 { "test" } else { "tests" });
    report.styled(if failed == 0 { GREEN } else { RED }, &said);
    report.out.push('\n');
    report.out
}

struct Report {
    out: String,
    coloured: bool,
}

impl Report {
    fn difference(&mut self, Difference { what, expected, got }: &Difference) {
        self.out.push_str(&format!("  {}\n", displayable(what)));
        // A single line with a newline at its end is not several lines.
        let has_several = |text: &str| text.strip_suffix('\n').unwrap_or(text).contains('\n');
        if has_several(expected) || has_several(got) {
            return self.lines(expected, got);
        }
        let [expected, got] = [expected, got].map(|text| displayable(text));
        self.out.push_str("    expected  ");
        self.styled(GREEN, &expected);
        self.out.push_str("\n    got       ");
        self.styled(RED, &got);
        self.out.push('\n');
        let same = expected.chars().zip(got.chars()).take_while(|(expected, got)| expected == got).count();
        if same >= LONG {
            self.out.push_str(&format!("    {}^ from here on\n", " ".repeat("expected  ".len() + same)));
        }
    }

    /// Writes the lines that differ, with their context.
    fn lines(&mut self, expected: &str, got: &str) {
        let [expected, got] = [expected, got].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
        let shorter = expected.len().min(got.len());
        let before = expected.iter().zip(&got).take_while(|(expected, got)| expected == got).count();
        let both = expected.iter().rev().zip(got.iter().rev());
        let behind = both.take(shorter - before).take_while(|(expected, got)| expected == got).count();
        let differ = |lines: &[&str]| (before, lines.len() - behind);
        let ((start, expected_end), (_, got_end)) = (differ(&expected), differ(&got));
        self.all("  ", None, &expected[start.saturating_sub(CONTEXT)..start]);
        self.all("- ", Some(GREEN), &expected[start..expected_end]);
        self.all("+ ", Some(RED), &got[start..got_end]);
        self.all("  ", None, &expected[expected_end..expected.len().min(expected_end + CONTEXT)]);
    }

    fn all(&mut self, mark: &str, style: Option<&str>, lines: &[&str]) {
        for line in lines {
            let text = format!("{mark}{}", displayable(line));
            self.out.push_str("    ");
            match style {
                Some(style) => self.styled(style, &text),
                None => self.out.push_str(&text),
            }
            self.out.push('\n');
        }
    }

    fn styled(&mut self, style: &str, text: &str) {
        match self.coloured {
            true => self.out.push_str(&format!("\x1b[{style}m{text}\x1b[0m")),
            false => self.out.push_str(text),
        }
    }
}

/// The text with all control characters escaped, newlines too.
fn displayable(text: &str) -> String {
    let mut out = String::new();
    each_displayable(text.as_bytes(), |part, _| out.push_str(part));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &str, got: &str, shown: &str) {
        let mut report = Report { out: String::new(), coloured: false };
        let (what, expected, got) = ("a.message".to_owned(), expected.to_owned(), got.to_owned());
        report.difference(&Difference { what, expected, got });
        assert_eq!(report.out, format!("  a.message\n{shown}"));
    }

    #[test]
    fn one_line_or_several() {
        check("err", "info", "    expected  err\n    got       info\n");
        check("err\x1b", "", "    expected  err\\x1b\n    got       \n");
        check(
            "0123456789abcdef7",
            "0123456789abcdef8 and more",
            "    expected  0123456789abcdef7\n    got       0123456789abcdef8 and more\n                              ^ from here on\n",
        );
        check(
            "1\n2\n3\nx\n4\n5\n6",
            "1\n2\n3\ny\nz\n4\n5\n6",
            "      2\\x0a\n      3\\x0a\n    - x\\x0a\n    + y\\x0a\n    + z\\x0a\n      4\\x0a\n      5\\x0a\n",
        );
        check("a\n", "a", "    expected  a\\x0a\n    got       a\n");
        check("a\na\n", "a\n", "      a\\x0a\n    - a\\x0a\n");
    }
}
