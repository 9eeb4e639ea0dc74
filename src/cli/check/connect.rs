//! Tests whether the collectors can be reached, all of them at once, as a relay would connect.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::super::{Failure, runtime};
use super::Report;
use crate::config::Config;
use crate::forward::{self, Attempt, Resolver, attempt};
use crate::sorted::sort_by_key;

/// Tries each endpoint of each target. A target without any reachable endpoint is a problem.
pub fn try_collectors(config: &Config, report: &mut Report) -> Result<(), Failure> {
    let found = runtime()?.block_on(async {
        let mut running = JoinSet::new();
        for (number, settings) in config.forward.iter().enumerate() {
            // Unusable certificates have been reported.
            let Ok(connector) = forward::tls_connector(settings) else { continue };
            for (at, target) in settings.to.iter().enumerate() {
                let resolver = Resolver::new(config.resolve.clone());
                let attempts = attempt(Arc::new(settings.clone()), target.clone(), resolver, connector.clone());
                running.spawn(async move { ((number, at), attempts.await) });
            }
        }
        let mut found = running.join_all().await;
        sort_by_key(&mut found, |(place, _)| *place);
        found
    });
    for ((number, at), attempts) in found {
        let settings = &config.forward[number];
        let target = format!("forward {}: {}", settings.name, settings.to[at]);
        match attempts {
            None => {}
            Some(Err(why)) => report.problem(format!("{target}: {why}")),
            Some(Ok(attempts)) => tell(&target, attempts, report),
        }
    }
    Ok(())
}

fn tell(target: &str, attempts: Vec<Attempt>, report: &mut Report) {
    let is_reached = attempts.iter().any(|attempt| attempt.outcome.is_ok());
    for Attempt { at, outcome } in attempts {
        match outcome {
            Ok(seen) => report.note(format!("{target}: {at}: {seen}")),
            Err(why) if is_reached => report.warning(format!("{target}: {at}: {why}")),
            Err(why) => report.problem(format!("{target}: {at}: {why}")),
        }
    }
}
