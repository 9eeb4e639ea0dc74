//! The format `json` for any URL that accepts it by POST: one object a line, or an array of objects. Each 2xx means delivered.

use super::object::push_array;
use super::{Head, Line};
use crate::record::{Value, render_json};

pub struct Ndjson {
    /// Whether all objects are in one array.
    pub is_array: bool,
    /// The SD-ID of the element with image, name and ID.
    pub sd_id: String,
    /// Added to the `fields` of each line.
    pub fields: Vec<(String, String)>,
}

impl Ndjson {
    /// `to` has the whole path.
    pub fn head(&self) -> Head {
        let content_type = if self.is_array { "application/json" } else { "application/x-ndjson" };
        Head { path: "", content_type }
    }

    /// Appends a request for these lines.
    pub fn body(&self, lines: &[Line<'_>], out: &mut Vec<u8>) {
        if self.is_array {
            return push_array(lines, out, |line, out| self.object(line, out));
        }
        for line in lines {
            self.object(line, out);
            out.push(b'\n');
        }
    }

    /// Appends the object of a line.
    pub fn object(&self, line: &Line<'_>, out: &mut Vec<u8>) {
        if self.fields.is_empty() {
            return render_json(&line.record, &self.sd_id, out);
        }
        let mut record = line.record.clone();
        for (name, value) in &self.fields {
            record.fields.set(name.as_str(), Value::Text(value.as_bytes().into()));
        }
        render_json(&record, &self.sd_id, out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Api;
    use super::super::properties::{body_of, verdicts};
    use super::*;

    fn api(is_array: bool, fields: &[(&str, &str)]) -> Api {
        let fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Api::Ndjson(Ndjson { is_array, sd_id: "docker@32473".to_owned(), fields })
    }

    #[test]
    fn objects_are_the_format_json() {
        let lines: [&[u8]; 2] = [b"<13>1 - - app - - [fields@32473 a=\"1\"] x", b"<13>1 - - - - - - y\nz"];
        let (app, bare) = (
            r#"{"facility":"user","severity":"notice","app_name":"app","fields":{"a":"1"},"message":"x"}"#,
            r#"{"facility":"user","severity":"notice","message":"y\nz"}"#,
        );
        assert_eq!(body_of(&api(false, &[]), &lines), format!("{app}\n{bare}\n"));
        assert_eq!(body_of(&api(true, &[]), &lines), format!("[{app},{bare}]"));
        assert_eq!(
            body_of(&api(false, &[("env", "prod")]), &lines[..1]),
            app.replace("\"1\"", "\"1\",\"env\":\"prod\"") + "\n"
        );
    }

    #[test]
    fn the_number_of_an_answer_is_all_that_counts() {
        let check = |status: u16, expected: &str| verdicts(&api(false, &[]), 3, status, "whatever", expected);
        [200, 201, 202, 204].into_iter().for_each(|status| check(status, "Delivered"));
        [400, 422].into_iter().for_each(|status| check(status, "Refused("));
        check(413, "TooLarge(");
        [301, 401, 403, 404].into_iter().for_each(|status| check(status, "Stop"));
        [408, 429, 500, 503].into_iter().for_each(|status| check(status, "Again"));
    }
}
