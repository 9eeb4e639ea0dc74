//! The sink of a session's messages. Like `listen::ingest`, it turns each message into a record, checks admission, and
//! writes admitted messages to the batch.

use std::collections::VecDeque;
use std::sync::Arc;

use logferry::internals::listen::{Admission, AdmissionPolicy, Buckets};
use logferry::internals::metrics::Metrics;
use logferry::internals::protocol::session::{Ack, Numbers, Sink, ToRecord};
use logferry::internals::protocol::syslog::{Frame, Message, Settings, Translator};
use logferry::internals::record::{Rule, UnixMicros};
use logferry::internals::spool::{Batch, Origin};

/// The time of receipt of all messages.
const RECEIVED: UnixMicros = UnixMicros(1_795_213_727_500_000);
const DEBUG: u8 = 7;

pub struct Gate {
    translator: Translator,
    admission: Admission,
    policy: AdmissionPolicy,
    batch: Batch,
    /// Batches that are complete and not yet handed to the spool.
    pub tickets: VecDeque<Ticket>,
}

pub struct Ticket {
    pub batch: Batch,
    pub origin: Option<Origin>,
    pub ack: Ack,
}

impl Gate {
    pub fn new(drop: Vec<Rule>, metrics: &Metrics) -> Self {
        Self {
            translator: Translator::new(Arc::new(Settings { hostname: "here".into(), ..Settings::default() })),
            admission: Admission::new(metrics.containers().clone(), Arc::new(Buckets::default()), "relp".into()),
            policy: AdmissionPolicy { drop: drop.into(), ..AdmissionPolicy::default() },
            batch: Batch::new(),
            tickets: VecDeque::new(),
        }
    }
}

impl Gate {
    fn admit(message: Message<'_>, admission: &mut Admission, policy: &AdmissionPolicy, batch: &mut Batch) -> bool {
        let record = &message.record;
        let (priority, header) = ((record.facility, record.severity), message.header);
        let mut sender = admission.identify(record, header, policy, RECEIVED);
        let let_in = admission
            .check_rules(&mut sender, priority, policy)
            .and_then(|_| admission.check_load(&sender, priority.1, policy, (DEBUG, false), RECEIVED));
        if let_in.is_ok() {
            batch.push(|out| message.write(out));
        }
        let_in.is_ok()
    }
}

impl Sink for Gate {
    fn frame(&mut self, bytes: &[u8], cut: bool) -> bool {
        let (message, _) = self.translator.read(&Frame { bytes, cut, received: RECEIVED });
        Self::admit(message, &mut self.admission, &self.policy, &mut self.batch)
    }

    fn record(&mut self, message: &impl ToRecord) -> bool {
        let message = self.translator.take(message, RECEIVED);
        Self::admit(message, &mut self.admission, &self.policy, &mut self.batch)
    }

    fn ticket(&mut self, ack: Ack, numbers: Option<Numbers<'_>>) {
        let origin = numbers.map(|Numbers { stream, session, first_line, was }| Origin {
            stream: stream.to_owned(),
            session,
            first_line,
            was: was.map(str::to_owned),
        });
        self.tickets.push_back(Ticket { batch: std::mem::take(&mut self.batch), origin, ack });
    }
}
