//! A worker's membership in its group: taken, taken once more, ended.

use super::{
    client::{ANSWER, Kafka, ask, classify, taken_over},
    context::{MemberContext, answer},
    queues::{Bell, Consumer},
};
use crate::log::{LogError, Membership};
use rdkafka::{
    bindings::{rd_kafka_mem_free, rd_kafka_memberid},
    consumer::Consumer as _,
    types::RDKafkaErrorCode,
};
use std::{
    ffi::CStr,
    sync::Arc,
    time::{Duration, Instant},
};

/// A worker's membership in its group.
pub struct Member {
    kafka: Kafka,
    group: &'static str,
    worker: u32,
    inputs: Vec<usize>,
    leave: bool,
    /// The client.
    pub consumer: Arc<Consumer>,
    bell: Bell,
    fences: Fences,
}

impl Member {
    /// Joins `group` as the `worker`-th member of this instance, and subscribes to the first of `inputs`. With `leave` the
    /// membership is given up when it ends; otherwise the place is kept for the next life. `bell` rings when the client has something to
    /// tell.
    ///
    /// # Errors
    /// When the cluster can't be reached, or refuses.
    pub fn join(kafka: &Kafka, group: &'static str, worker: u32, inputs: &[usize], leave: bool, bell: Bell) -> Result<Self, LogError> {
        let consumer = joined(kafka, group, worker, inputs, leave, bell.clone())?;
        Ok(Self { kafka: kafka.clone(), group, worker, inputs: inputs.to_vec(), leave, consumer, bell, fences: Fences::default() })
    }

    /// Its static id.
    pub fn id(&self) -> String {
        self.kafka.member_id(self.group, self.worker)
    }

    /// The id that the group gave it when it joined; none while it is no member. Ids are never given twice.
    #[allow(unsafe_code, reason = "rdkafka does not show it")]
    pub fn number(&self) -> Option<String> {
        let client = self.consumer.client().native_ptr();
        // SAFETY: the client lives as long as `self`. What is returned is a C string of the caller's, or null.
        let id = unsafe {
            let id = rd_kafka_memberid(client);
            if id.is_null() {
                return None;
            }
            let copy = CStr::from_ptr(id).to_string_lossy().into_owned();
            rd_kafka_mem_free(client, id.cast());
            copy
        };
        (!id.is_empty()).then_some(id)
    }

    /// Why the client has ended, if it has: the broker told it that its static id is another's.
    pub fn fenced(&self) -> Option<String> {
        let (code, reason) = self.consumer.client().fatal_error()?;
        (code == RDKafkaErrorCode::FencedInstanceId).then_some(reason)
    }

    /// Joins with a new client. A static member that sends its join once more, since no answer came, is fenced by its own
    /// first one; that is not seen twice. Another process with the same id comes back each time.
    ///
    /// # Errors
    /// When another process has this place; when the cluster can't be reached.
    pub fn join_anew(&mut self, reason: &str) -> Result<(), LogError> {
        if self.fences.again() {
            return Err(LogError::Fenced(taken_over(reason, &self.id())));
        }
        tracing::warn!(group = self.group, member = self.id(), "joining again: {reason}");
        self.end();
        self.consumer = joined(&self.kafka, self.group, self.worker, &self.inputs, self.leave, self.bell.clone())?;
        Ok(())
    }

    /// Gives up what is assigned, once. Dropping the client ends the membership; until then every change that was told must
    /// have been answered.
    pub fn end(&self) {
        let (consumer, context) = (&self.consumer, self.consumer.context());
        if !context.begin_to_end() {
            return;
        }
        while let Some(change) = context.next_change() {
            if let Membership::Assigned(_) = change {
                answer(consumer, true);
            }
        }
        answer(consumer, false);
        loop {
            let answered = context.answered();
            if consumer.poll(Duration::ZERO).is_none() && context.answered() == answered {
                break;
            }
        }
        context.end();
    }
}

impl Drop for Member {
    /// Also after a failure: a client whose changes nobody answers does not end.
    fn drop(&mut self) {
        self.end();
    }
}

fn joined(kafka: &Kafka, group: &str, worker: u32, inputs: &[usize], leave: bool, bell: Bell) -> Result<Arc<Consumer>, LogError> {
    let mut consumer: Consumer =
        kafka.member(group, worker, leave).create_with_context(MemberContext::default()).map_err(|e| classify("joining", &e))?;
    consumer.set_nonempty_callback(move || bell.ring());
    // Metadata of all inputs before subscribing: otherwise a companion's first fetch waits 1.5 s.
    for &topic in inputs {
        let name = kafka.name(topic);
        ask(&name, || consumer.fetch_metadata(Some(&name), ANSWER))?;
    }
    let lead = inputs.first().ok_or_else(|| LogError::Fatal(format!("{group} has no inputs")))?;
    let name = kafka.name(*lead);
    consumer.subscribe(&[name.as_str()]).map_err(|e| classify(&name, &e))?;
    Ok(Arc::new(consumer))
}

/// How often an id was taken from its holder lately.
#[derive(Default)]
pub struct Fences(Vec<Instant>);

impl Fences {
    /// Once or twice may be one's own doing.
    const AT_MOST: usize = 3;
    const WITHIN: Duration = Duration::from_secs(60);

    /// Counts one more; true when there were so many that there must be a rival.
    pub fn again(&mut self) -> bool {
        self.0.retain(|at| at.elapsed() < Self::WITHIN);
        self.0.push(Instant::now());
        self.0.len() >= Self::AT_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_taken_three_times_in_a_minute_has_a_rival() {
        let mut fences = Fences::default();
        assert_eq!([fences.again(), fences.again(), fences.again()], [false, false, true]);
        let long_ago = Instant::now().checked_sub(Fences::WITHIN);
        assert!(!Fences(long_ago.into_iter().chain(long_ago).collect()).again(), "those are forgotten");
    }
}
