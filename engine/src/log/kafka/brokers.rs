//! What the brokers' own settings have to allow.

use super::{
    client::{ANSWER, Kafka},
    context::Quiet,
    topics::described,
};
use crate::config::COMMIT_TIMEOUT;
use rdkafka::{
    admin::{AdminClient, ResourceSpecifier},
    error::KafkaError,
};
use std::{cmp::Ordering, time::Duration};

/// Brokers before it take offsets from a member that was replaced (KIP-447).
const LEAST_VERSION: (u32, u32) = (2, 5);

/// What of the brokers' settings a shop can't run with, and how to mend it. Empty where all is well, and where they may not be read,
/// which needs a right of its own (DescribeConfigs of the cluster): what does not fit is then refused once it is asked for.
pub fn unfit(kafka: &Kafka) -> Vec<String> {
    settings(kafka).unwrap_or_else(|why| {
        tracing::debug!("the brokers' settings are not known: {why}");
        Vec::new()
    })
}

fn settings(kafka: &Kafka) -> Result<Vec<String>, String> {
    let wrong = |e: KafkaError| e.to_string();
    let admin: AdminClient<Quiet> = kafka.producer().create_with_context(Quiet).map_err(wrong)?;
    let mut problems = Vec::new();
    for broker in admin.inner().fetch_metadata(None, ANSWER).map_err(wrong)?.brokers() {
        let settings = described(&admin, ResourceSpecifier::Broker(broker.id()))?;
        let found = judge(kafka.settings.session_timeout, |name| settings.get(name).and_then(|entry| entry.value.clone()));
        problems.extend(found.into_iter().map(|problem| format!("broker {}: {problem}", broker.id())));
    }
    Ok(problems)
}

fn judge(session: Duration, stated: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let millis = |name: &str| stated(name).and_then(|value| value.parse().ok()).map(Duration::from_millis);
    let mut problems = Vec::new();
    for (name, beyond) in [("group.min.session.timeout.ms", Ordering::Less), ("group.max.session.timeout.ms", Ordering::Greater)] {
        if let Some(limit) = millis(name).filter(|limit| session.cmp(limit) == beyond) {
            let (limit, session) = (limit.as_millis(), session.as_secs());
            problems.push(format!("its {name} is {limit}, and kafka.session_timeout_s is {session}: change one of them"));
        }
    }
    if let Some(most) = millis("transaction.max.timeout.ms").filter(|most| *most < COMMIT_TIMEOUT) {
        let (most, least) = (most.as_millis(), COMMIT_TIMEOUT.as_millis());
        problems.push(format!("its transaction.max.timeout.ms is {most}: raise it to {least} or more"));
    }
    // Kafka 4 has no such setting any more.
    let protocol = stated("inter.broker.protocol.version");
    if let Some(version) = protocol.filter(|version| number(version).is_some_and(|number| number < LEAST_VERSION)) {
        let (major, minor) = LEAST_VERSION;
        problems.push(format!(
            "it speaks as Kafka {version}, whose transactions do not fence a replaced instance: upgrade it to {major}.{minor} at least"
        ));
    }
    problems
}

/// Of `2.4-IV1` the first two numbers.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(stated: &[(&str, &str)]) -> Vec<String> {
        judge(Duration::from_secs(10), |name| stated.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn settings_that_fit_and_those_that_are_not_stated_are_no_problem() {
        let fit = [
            ("group.min.session.timeout.ms", "10000"),
            ("group.max.session.timeout.ms", "10000"),
            ("transaction.max.timeout.ms", "10000"),
            ("inter.broker.protocol.version", "2.5-IV0"),
        ];
        assert_eq!(judged(&fit), [""; 0]);
        assert_eq!(judged(&[("inter.broker.protocol.version", "10.0")]), [""; 0]);
        assert_eq!(judged(&[("inter.broker.protocol.version", "unheard of")]), [""; 0]);
        assert_eq!(judged(&[]), [""; 0]);
    }

    #[test]
    fn each_that_does_not_fit_is_named_with_its_value() {
        for (name, value) in [
            ("group.min.session.timeout.ms", "10001"),
            ("group.max.session.timeout.ms", "9999"),
            ("transaction.max.timeout.ms", "9999"),
            ("inter.broker.protocol.version", "2.4-IV1"),
        ] {
            let problems = judged(&[(name, value)]);
            assert!(problems.len() == 1 && problems.iter().all(|p| p.contains(value)), "{name}: {problems:?}");
        }
    }
}
