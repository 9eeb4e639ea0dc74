//! Private items that `tests/`, `benches/`, `fuzz/` and `examples/` of this repository use, under the paths of their modules. This
//! is no public API. An item that is not listed here stays private, so the compiler reports it as dead code when nothing calls it.

pub mod certificate {
    pub use crate::certificate::read;
}

pub mod cli {
    pub use crate::cli::{any_message, any_message_of_others, command};
}

pub mod config {
    pub use crate::config::properties;
    pub use crate::config::{Config, Fingerprint, Framing, ListenAddress, Overrides};
}

pub mod forward {
    pub use crate::forward::delivery::{
        Delivery, NatsDelivery, Progress, Publishing, Refusals, Rejected, RelpDelivery, SyslogDelivery,
    };
    pub use crate::forward::encode::Encoding;
    pub use crate::forward::encoding;
    pub use crate::forward::filtered_chunk::FilteredChunk;
    pub use crate::forward::tcp::{Replay, TcpSample, Window};
}

pub mod listen {
    pub use crate::listen::BACKLOG;
    pub use crate::listen::admission::{Admission, AdmissionPolicy, Buckets, Shedding};
}

pub mod metrics {
    pub use crate::metrics::{ForwardMetrics, Metrics, SpoolMetrics};
}

pub mod protocol {
    pub use crate::protocol::properties;

    pub mod api {
        pub use crate::protocol::api::cloudwatch::{self, CloudWatch};
        pub use crate::protocol::api::datadog::Datadog;
        pub use crate::protocol::api::elasticsearch::{self, Elasticsearch};
        pub use crate::protocol::api::loki::{Label, Loki};
        pub use crate::protocol::api::ndjson::Ndjson;
        pub use crate::protocol::api::newrelic::NewRelic;
        pub use crate::protocol::api::otlp::Otlp;
        pub use crate::protocol::api::s3::S3;
        pub use crate::protocol::api::splunk::{Ack, Splunk};
        pub use crate::protocol::api::{Api, Line, LineId, properties};
    }
    pub mod fluent {
        pub use crate::protocol::fluent::{
            BadFrame, Batch, Entries, Entry, Event, Framer, Items, Mode, Packer, TagTemplate, Time, Value, append_ack,
            properties,
        };
    }
    pub mod framing {
        pub use crate::protocol::framing::{Found, FoundBy, Framer, properties};
    }
    pub mod gelf {
        pub use crate::protocol::gelf::{
            ChunkCounts, ChunkLimits, Chunks, Found, GelfFramer, MAX_CHUNKS, Message, Payloads, Refused, append,
            properties,
        };
    }
    pub mod journal {
        pub use crate::protocol::journal::{
            CONTENT_TYPE, Cursor, Cursors, Entry, ExportReader, MAX_ENTRY, MAX_FIELDS, MAX_NAME, MAX_VALUE, PATH, Part,
            Refused, Taken, Upload, properties,
        };
    }
    pub mod nats {
        pub use crate::protocol::nats::{Info, Login, SubjectTemplate, properties};
    }
    pub mod outline {
        pub use crate::protocol::outline::Outline;
    }
    pub mod proxy {
        pub use crate::protocol::proxy::properties;
    }
    pub mod relp {
        pub use crate::protocol::relp::{
            BadFrame, Command, Decoder, Numbered, NumberedStreams, Numbering, Offers, Proofs, append, append_ok,
            properties,
        };
    }
    pub mod session {
        pub use crate::protocol::session::{
            Ack, AnySession, Bounds, Closed, Numbers, Phase, Protocol, Refusal, Session, Sink, ToRecord, Violation,
        };
    }
    pub mod splunk {
        pub use crate::protocol::splunk::{
            Acks, Answer, Body, Channel, Given, Head, Limits, MAX_ACK_BODY, Message, Post, Refused, Request, Tokens,
            properties,
        };
    }
    pub mod syslog {
        pub use crate::protocol::syslog::{
            Frame, Message, Senders, Settings, Shape, TagTemplates, Translator, parse, properties, stamp_properties,
        };
    }
}

pub mod record {
    pub use crate::record::{
        Container, Format, HeaderField, Patterns, Record, Rule, Severities, Stamp, UnixMicros, Value, append_escaped,
        append_on_one_line, properties, render,
    };
}

pub mod shape {
    pub use crate::shape::{
        Adding, Known, Mask, MaskPattern, Misread, Parser, Pattern, Secret, Shape, Shaped, Steps, Tally, find_fields,
        properties,
    };
}

pub mod spool {
    pub use crate::spool::{
        Batch, NotSpooled, Options, Origin, Position, Reader, Spool, Sync, WhenFull, Writer, properties,
    };
}
