//! What `tests/`, `benches/`, `fuzz/` and `examples/` of this repository need of the insides, under the paths of the modules. No
//! promise to anybody else: whatever is not named here is private, and the compiler finds it when nothing calls it.

pub mod certificate {
    pub use crate::certificate::read;
}

pub mod cli {
    pub use crate::cli::{any_message, command};
}

pub mod config {
    pub use crate::config::properties;
    pub use crate::config::{Config, Fingerprint, Framing, ListenAddress, Overrides};
}

pub mod forward {
    pub use crate::forward::delivery::{Delivery, Progress, Refusals, RelpDelivery};
    pub use crate::forward::encode::Encoding;
    pub use crate::forward::encoding;
    pub use crate::forward::filtered_chunk::FilteredChunk;
    pub use crate::forward::tcp::TcpSample;
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

    pub mod framing {
        pub use crate::protocol::framing::{Framer, properties};
    }
    pub mod relp {
        pub use crate::protocol::relp::{
            BadFrame, Decoder, Numbered, NumberedStreams, Numbering, Offers, Proofs, append, append_ok, properties,
        };
    }
    pub mod session {
        pub use crate::protocol::session::{
            Ack, AnySession, Bounds, Closed, Numbers, Phase, Protocol, Refusal, Session, Sink, Violation,
        };
    }
    pub mod syslog {
        pub use crate::protocol::syslog::{
            Frame, Senders, Settings, Shape, TagTemplate, Translator, parse, properties,
        };
    }
}

pub mod record {
    pub use crate::record::{
        Container, Format, HeaderField, Record, Rule, Severities, Stamp, UnixMicros, append_escaped,
        append_on_one_line, properties, render,
    };
}

pub mod spool {
    pub use crate::spool::{
        Batch, NotSpooled, Options, Origin, Position, Reader, Spool, Sync, WhenFull, Writer, properties,
    };
}
