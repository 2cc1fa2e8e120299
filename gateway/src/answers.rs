//! Commands wait here for what the log says became of them.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tillflow_engine::port::Committed;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Records of one key that a waiting command may leave unread; a user's own are few.
const UNREAD: usize = 256;

/// Schemas of the records that answer commands: the ledger, and what could not be processed.
const ANSWERING: [&str; 2] = ["loyalty_update", "dead_letter"];

/// A waiter's number, and its way.
type Place = (u64, Sender<Arc<Committed>>);

/// Who waits for records of which key.
#[derive(Default)]
pub(crate) struct Answers {
    waiting: Mutex<HashMap<String, Vec<Place>>>,
    numbers: AtomicU64,
}

/// Waits for records of one key, from when it was made until it is dropped.
pub(crate) struct Waiter {
    answers: Arc<Answers>,
    key: String,
    number: u64,
    records: Receiver<Arc<Committed>>,
}

impl Answers {
    /// From now on the key's records are kept for the caller.
    pub fn wait(self: &Arc<Self>, key: &str) -> Waiter {
        let (sender, records) = channel(UNREAD);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().entry(key.to_owned()).or_default().push((number, sender));
        Waiter { answers: self.clone(), key: key.to_owned(), number, records }
    }

    /// The log has a record.
    pub fn hear(&self, record: &Arc<Committed>) {
        if !ANSWERING.contains(&record.schema.as_str()) {
            return;
        }
        for (_, sender) in self.waiting.lock().get(&record.key).into_iter().flatten() {
            // Who leaves that many unread asks the state instead.
            let _ = sender.try_send(record.clone());
        }
    }
}

impl Waiter {
    /// The key's next record.
    pub async fn next(&mut self) -> Option<Arc<Committed>> {
        self.records.recv().await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.answers.waiting.lock();
        if let Some(waiters) = waiting.get_mut(&self.key) {
            waiters.retain(|(number, _)| *number != self.number);
            if waiters.is_empty() {
                waiting.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillflow_schemas::Timestamp;

    fn record(schema: &str, key: &str) -> Arc<Committed> {
        let (topic, at, value) = (String::new(), Timestamp::from_millis(0), None);
        Arc::new(Committed { topic, schema: schema.into(), partition: 0, offset: 0, at, key: key.into(), value })
    }

    #[tokio::test]
    async fn each_hears_of_its_own_key_alone_and_leaves_nothing_behind() {
        let answers = Arc::new(Answers::default());
        let (mut ada, mut again, ben) = (answers.wait("ada"), answers.wait("ada"), answers.wait("ben"));
        answers.hear(&record("recommendations", "ada"));
        answers.hear(&record("loyalty_update", "ben"));
        answers.hear(&record("loyalty_update", "ada"));
        for waiter in [&mut ada, &mut again] {
            let heard = waiter.next().await.unwrap();
            assert_eq!((heard.key.as_str(), heard.schema.as_str()), ("ada", "loyalty_update"));
        }
        drop((ada, again, ben));
        assert!(answers.waiting.lock().is_empty());
    }
}
