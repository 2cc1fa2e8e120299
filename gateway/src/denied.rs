//! Who asks for a feature and is denied it is told to the customer's owner, which may suggest a plan that has it.

use crate::{App, ingest};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::{collections::HashSet, sync::Arc};
use tillflow_schemas::{CustomerSignal, Event};

/// An hour: one denial of a feature is told once in it.
const HOUR_MS: i64 = 3_600_000;
/// Denials remembered as told; beyond them some are told twice, which is heard once.
const REMEMBERED: usize = 10_000;

/// Denials that were told in this hour.
#[derive(Default)]
pub(crate) struct Denied {
    told: Mutex<(i64, HashSet<(String, String)>)>,
}

impl Denied {
    /// Whether this is to be told, because it was not yet in this hour.
    fn is_news(&self, hour: i64, user: &str, feature: &str) -> bool {
        let mut told = self.told.lock();
        if told.0 != hour || told.1.len() >= REMEMBERED {
            *told = (hour, HashSet::new());
        }
        told.1.insert((user.to_owned(), feature.to_owned()))
    }
}

/// Looks at the answer to a question about a feature. Nobody waits for the telling, and it may fail: what is suggested
/// is worth less than an answer.
pub(crate) fn look(app: &Arc<App>, user: &str, feature: &str, answer: &Value) {
    let denied = answer.get("has").is_some_and(|has| has == false) && answer.get("upgrade_to").is_some();
    let now = (app.wall)();
    let hour = now.millis().div_euclid(HOUR_MS);
    if !denied || !app.denied.is_news(hour, user, feature) {
        return;
    }
    let signal = CustomerSignal {
        user_id: user.into(),
        signal_id: format!("denied:{user}:{feature}:{hour}"),
        at: now,
        kind: "feature_denied".into(),
        data: Map::from_iter([("feature".into(), feature.into())]),
    };
    match ingest::encode(&Event::CustomerSignal(signal)) {
        Ok(record) => drop(app.shop.append(vec![record])),
        Err(e) => tracing::debug!("a denied feature is not told: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_news_once_an_hour() {
        let denied = Denied::default();
        assert!(denied.is_news(1, "u", "f") && denied.is_news(1, "u", "g") && denied.is_news(1, "v", "f"));
        assert!(!denied.is_news(1, "u", "f"));
        assert!(denied.is_news(2, "u", "f"));
    }
}
