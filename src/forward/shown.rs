//! The bytes that a target gets for one line, for `logferry explain`. Pure.

use super::encode::encoding;
use super::http;
use crate::config::{self, DeliverySettings, Framing, Target};
use crate::protocol::fluent::Packer;
use crate::protocol::nats::SubjectTemplate;
use crate::record::{Record, render_json};

/// Stands for the spool's ID. A relay writes its own spool ID there.
const SPOOL: &str = "SPOOL";

/// One line as a target gets it.
pub struct Shown {
    /// The format of the line.
    pub format: String,
    pub framing: Option<Framing>,
    /// What carries the line, for a person.
    pub within: String,
    pub bytes: Vec<u8>,
}

/// The bytes that a target gets for a line. `sd_id`: the SD-ID under which image, name and ID are found in the line.
pub fn shown(settings: &config::Forward, target: &Target, sd_id: &str, line: &[u8]) -> Shown {
    let stream = format!("{SPOOL}/{}", settings.name);
    let mut bytes = Vec::new();
    match &target.delivery {
        DeliverySettings::Http(settings) => {
            let path = http::example(settings, &stream, sd_id, line, &mut bytes);
            let within = match settings.api {
                config::Api::S3 => format!("in the object {}{path}", target.address.to_string().trim_end_matches('/')),
                _ => format!("in a request to {}{path}", target.address),
            };
            Shown { format: settings.api.word().to_owned(), framing: None, within, bytes }
        }
        DeliverySettings::Nats(settings) => {
            let record = Record::from_line(line, sd_id);
            let mut subject = Vec::new();
            SubjectTemplate::new(&settings.subject).fill(&record, &mut subject);
            render_json(&record, sd_id, &mut bytes);
            let within = format!("in a message to {}", String::from_utf8_lossy(&subject));
            Shown { format: "json".to_owned(), framing: None, within, bytes }
        }
        DeliverySettings::Fluent(settings) => {
            let packer = Packer::new(settings.tag.clone(), sd_id.to_owned(), stream);
            packer.pack([line].into_iter(), (http::EXAMPLE, http::EXAMPLE), &mut bytes);
            Shown { format: "fluent".to_owned(), framing: None, within: "in a chunk".to_owned(), bytes }
        }
        DeliverySettings::Stream(_)
        | DeliverySettings::Relp(_)
        | DeliverySettings::Datagram
        | DeliverySettings::GelfDatagram(_)
        | DeliverySettings::File(_)
        | DeliverySettings::Stdout => {
            let encoding = encoding(settings, target, sd_id);
            encoding.append(line, &mut Vec::new(), &mut bytes);
            let format = encoding.format.map_or_else(|| "gelf".to_owned(), |format| format.to_string());
            let within = match target.address.is_udp() {
                true => "one datagram",
                false => "in a RELP frame",
            };
            Shown { format, framing: encoding.framing, within: within.to_owned(), bytes }
        }
    }
}
