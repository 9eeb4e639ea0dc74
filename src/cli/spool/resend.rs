//! `logferry spool resend`: makes the relay send the dead letters of a forward again, after the reason of their refusal has
//! been fixed.

use super::{Failure, SpoolArguments, print};
use crate::spool::{self, ResendError};

#[derive(clap::Args)]
pub struct Arguments {
    /// The forward whose dead letters are sent again, by the relay that runs, or at its next start
    #[arg(value_name = "FORWARD")]
    forward: String,

    #[command(flatten)]
    spool: SpoolArguments,
}

pub fn run(Arguments { forward, spool }: &Arguments) -> Result<(), Failure> {
    let (inspection, _) = spool.inspect()?;
    let mut known: Vec<&str> = inspection.cursors.iter().map(|cursor| cursor.forward.as_str()).collect();
    known.extend(inspection.dead_letters.iter().map(|letters| letters.forward.as_str()));
    if !known.contains(&&**forward) {
        known.sort_unstable();
        known.dedup();
        let (dir, known) = (inspection.dir.display(), known.join(", "));
        return Err(Failure::usage(format!("spool resend: there is no forward {forward} in {dir}; there is: {known}")));
    }
    match spool::resend(&inspection.dir, forward) {
        Ok(()) => print(format!(
            "dead letters of {forward} are sent again; `logferry spool cat --dead {forward}` has those that are refused again\n"
        )),
        Err(error @ ResendError::Rename(..)) => Err(Failure::config(&format!("spool resend: {error}"))),
        Err(error) => Err(Failure::failed(format!("spool resend: {error}"))),
    }
}
