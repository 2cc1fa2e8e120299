//! Looks whether all partitions of a group have an owner.
//!
//! A cooperative rebalance takes two rounds: first the old owner gives partitions up, then, when it joins again, the new
//! owner gets them. A static member that is killed between the two comes back without a rebalance, with what it had:
//! what it gave up belongs to nobody, and nothing would ever change that.

use super::client::{ANSWER, Kafka};
use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// Looks whether all partitions of a group have an owner.
pub struct Watch {
    looked: Instant,
    unowned: BTreeSet<i32>,
}

impl Watch {
    /// Begins to watch.
    pub fn new() -> Self {
        Self { looked: Instant::now(), unowned: BTreeSet::new() }
    }

    /// Whether this member, the first of the group, is to start a rebalance: twice in a row, the group being at rest,
    /// a partition of `topic` had no owner.
    pub fn is_to_rebalance<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        group: &str,
        me: &str,
        topic: &str,
        partitions: u32,
    ) -> bool {
        if self.looked.elapsed() < EVERY {
            return false;
        }
        self.looked = Instant::now();
        let before = std::mem::take(&mut self.unowned);
        match look(consumer, group, me, topic, partitions) {
            Ok(unowned) => self.unowned = unowned,
            Err(e) => tracing::debug!(group, "the group's members: {e}"),
        }
        let lasting = self.unowned.intersection(&before).next().is_some();
        if lasting {
            tracing::warn!(group, partitions = ?self.unowned, "partitions belong to nobody since an instance ended while it gave them up; joining again");
            self.unowned.clear();
        }
        lasting
    }
}

/// Partitions that no member owns; none while the group is not at rest, or another member is to see to it.
fn look<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    me: &str,
    topic: &str,
    partitions: u32,
) -> Result<BTreeSet<i32>, KafkaError> {
    let list = consumer.fetch_group_list(Some(group), ANSWER)?;
    let Some(group) = list.groups().iter().find(|g| g.name() == group && g.state() == "Stable") else { return Ok(BTreeSet::new()) };
    // A static member's id begins with its instance id.
    let first = group.members().iter().map(|m| m.id()).min();
    if !first.is_some_and(|id| id.starts_with(me)) {
        return Ok(BTreeSet::new());
    }
    let mut unowned: BTreeSet<i32> = (0..i32::try_from(partitions).unwrap_or(i32::MAX)).collect();
    for member in group.members() {
        let Some(owned) = member.assignment().and_then(|bytes| owned(bytes, topic)) else { return Ok(BTreeSet::new()) };
        unowned.retain(|p| !owned.contains(p));
    }
    Ok(unowned)
}

/// The partitions of `topic` in a ConsumerProtocolAssignment: version, then topics with their partitions.
fn owned(assignment: &[u8], topic: &str) -> Option<BTreeSet<i32>> {
    let mut owned = BTreeSet::new();
    if assignment.is_empty() {
        return Some(owned);
    }
    let mut rest = assignment.get(2..)?;
    for _ in 0..number(&mut rest)? {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        for _ in 0..number(&mut rest)? {
            let partition = number(&mut rest)?;
            if name == topic.as_bytes() {
                owned.insert(partition);
            }
        }
    }
    Some(owned)
}

fn number(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(i32::from_be_bytes(*bytes))
}

impl Kafka {
    /// The static id of a worker in its group.
    pub fn member_id(&self, group: &str, worker: u32) -> String {
        format!("{}-{group}-{worker}", self.settings.instance_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_a_damaged_one_is_nothing() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        for (name, partitions) in [("other", vec![7]), ("user_events", vec![0, 3])] {
            bytes.extend((name.len() as u16).to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|p: &i32| bytes.extend(p.to_be_bytes()));
        }
        assert_eq!(owned(&bytes, "user_events"), Some(BTreeSet::from([0, 3])));
        assert_eq!(owned(&[], "user_events"), Some(BTreeSet::new()));
        assert_eq!(owned(&bytes[..bytes.len() - 1], "user_events"), None);
    }
}
