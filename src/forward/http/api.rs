//! Makes an API from the settings in the config.

use crate::config::{Api as ApiName, HttpSettings};
use crate::protocol::api::cloudwatch::{self, CloudWatch};
use crate::protocol::api::datadog::Datadog;
use crate::protocol::api::elasticsearch::{self, DEFAULT_INDEX, Elasticsearch};
use crate::protocol::api::loki::Loki;
use crate::protocol::api::ndjson::Ndjson;
use crate::protocol::api::newrelic::NewRelic;
use crate::protocol::api::otlp::Otlp;
use crate::protocol::api::s3::S3;
use crate::protocol::api::splunk::Splunk;
use crate::protocol::api::{Api, Line, LineId};
use crate::record::Record;
use crate::record::template::AddedField;

/// The name of a line that is only shown.
pub const EXAMPLE: LineId = LineId { session: 1, number: 0 };

/// The body of a request for one line, not compressed. Returns what follows the address: the path of the API, or the object's key.
pub fn example(settings: &HttpSettings, stream: &str, sd_id: &str, line: &[u8], out: &mut Vec<u8>) -> String {
    let (api, record) = (api(settings, stream, sd_id), Record::from_line(line, sd_id));
    let path = match api.objects() {
        Some(s3) => format!("/{}", s3.key(EXAMPLE, &record, settings.compress)),
        // The query only says what the answer contains.
        None => api.head().path.split('?').next().unwrap_or_default().to_owned(),
    };
    api.body(&[Line { id: EXAMPLE, record, sent_at: None }], out);
    path
}

/// `stream`: the spool's ID and the forward's name.
pub fn api(settings: &HttpSettings, stream: &str, sd_id: &str) -> Api {
    let (spool, sd_id) = (stream.split('/').next().unwrap_or_default().to_owned(), sd_id.to_owned());
    // Fields that differ from line to line are part of the lines.
    let fixed = |field: &AddedField| Some((field.name.clone(), field.fixed()?.to_owned()));
    let fields = settings.fields.iter().filter_map(fixed).collect();
    match settings.api {
        ApiName::Elasticsearch => Api::Elasticsearch(Elasticsearch {
            index: elasticsearch::index(settings.index.as_deref().unwrap_or(DEFAULT_INDEX)),
            spool: settings.id.then_some(spool),
            sd_id,
            labels: fields,
        }),
        ApiName::Otlp => Api::Otlp(Otlp { spool, sd_id, attributes: fields }),
        ApiName::Loki => Api::Loki(Loki { labels: settings.labels.clone(), fields, sd_id }),
        ApiName::Splunk => Api::Splunk(Splunk {
            index: settings.index.clone(),
            sourcetype: settings.sourcetype.clone(),
            spool,
            fields,
            ack: settings.ack,
        }),
        ApiName::Datadog => Api::Datadog(Datadog { spool, tags: fields }),
        ApiName::NewRelic => Api::NewRelic(NewRelic { spool, attributes: fields }),
        ApiName::CloudWatch => {
            let cloud_watch = &settings.cloud_watch;
            let objects = (!cloud_watch.event_is_text).then_some(Ndjson { is_array: false, sd_id, fields });
            Api::CloudWatch(CloudWatch {
                group: cloudwatch::group(cloud_watch.group.as_deref().unwrap_or_default()),
                stream: cloudwatch::stream(&cloud_watch.stream),
                objects,
                creates: cloud_watch.create,
            })
        }
        ApiName::S3 => {
            Api::S3(S3 { stream: stream.replace('/', "-"), objects: Ndjson { is_array: false, sd_id, fields } })
        }
        ApiName::Ndjson => Api::Ndjson(Ndjson { is_array: settings.body_is_array, sd_id, fields }),
    }
}
