//! A member that the group took for dead, and whose client was told so upon its join, has joined anew and kept what it had, as
//! librdkafka does without a word: none of that is committed.

use rdkafka::{TopicPartitionList, consumer::Consumer};
use std::{collections::BTreeSet, time::Duration};
use tillflow_engine::log::{
    CommitError, Log, Membership, Positions, TaskCommit, TopicPartition, Transaction,
    kafka::{KafkaLog, Stores},
};
use tillflow_state::Shared;
use tillflow_tests::{Api, Kafka, Scratch, cluster::Shop, scratch, until};

const LIMIT: Duration = Duration::from_secs(90);
/// The coordinator's error code for a member that it does not know: UNKNOWN_MEMBER_ID.
const UNKNOWN_MEMBER: i16 = 25;

/// A worker of the group `customers` that has nothing to do.
struct Idler {
    log: KafkaLog,
    lead: usize,
    owned: BTreeSet<u32>,
}

impl Idler {
    fn join(shop: &Shop, worker: u32, files: &Scratch) -> Self {
        let stores = Stores::open(&files.join(format!("{worker}")), &Shared::new(8 << 20, 4 << 20)).unwrap();
        let lead = shop.cluster.catalog.index("user_events").unwrap();
        let log = KafkaLog::join(&shop.reached(), "customers", worker, &[lead], &stores, false).unwrap();
        Self { log, lead, owned: BTreeSet::new() }
    }

    /// Hears what the group tells, and gives up what is asked back or lost. Says what was lost.
    fn hear(&mut self) -> Vec<u32> {
        let mut all_lost = Vec::new();
        for change in self.log.poll(Duration::from_millis(20)).unwrap().changes {
            match change {
                Membership::Assigned(new) => self.owned.extend(new),
                Membership::Revoked(gone) => self.give_up(&gone),
                Membership::Lost(gone) => {
                    self.give_up(&gone);
                    all_lost.extend(gone);
                }
            }
        }
        all_lost
    }

    fn give_up(&mut self, partitions: &[u32]) {
        self.owned.retain(|p| !partitions.contains(p));
        self.log.release(partitions).unwrap();
    }

    /// Commits that the lead's partition 0 was processed up to this offset.
    fn commit(&mut self, offset: i64) -> Result<Positions, CommitError> {
        let input = TopicPartition { topic: self.lead, partition: 0 };
        let task = TaskCommit { partition: 0, offsets: vec![(input, offset)], rows: vec![(b"key", Some(b"value"))] };
        self.log.commit(&Transaction { records: Vec::new(), tasks: vec![task] })
    }
}

/// What is committed of the lead's partition 0.
fn committed(kafka: &Kafka, shop: &Shop) -> Option<i64> {
    let group = shop.cluster.group("customers");
    let asker: rdkafka::consumer::BaseConsumer = kafka.client().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&shop.topic("user_events"), 0);
    let offsets = asker.committed_offsets(list, LIMIT).unwrap();
    offsets.elements().first().and_then(|e| e.offset().to_raw())
}

#[test]
fn who_joined_anew_without_a_word_commits_nothing_of_before() {
    let kafka = Kafka::start();
    let proxy = kafka.proxy();
    let (shop, files) = (Shop::new(&kafka, &proxy.address()), scratch("tenure"));
    let mut first = Idler::join(&shop, 0, &files);
    until("the group gives it the partition", LIMIT, || {
        first.hear();
        first.owned.contains(&0)
    });
    first.commit(5).unwrap();

    // The others join, and so it has to; its request comes when they have gone on without it.
    proxy.hold(Api::JoinGroup, &shop.cluster.member_id("customers", 0));
    let mut second = Idler::join(&shop, 1, &files);
    until("it joins again", LIMIT, || proxy.holds());
    until("another has its partition", LIMIT, || {
        second.hear();
        second.owned.contains(&0)
    });
    second.commit(10).unwrap();
    proxy.release();
    until("it is told", LIMIT, || proxy.answered().is_some());
    assert_eq!(proxy.answered(), Some(UNKNOWN_MEMBER));

    // It goes on with what it had, for as long as it hears nothing.
    let mut tried = 0;
    until("it hears that its partition is lost", LIMIT, || {
        second.hear();
        let late = first.commit(7);
        assert!(matches!(late, Err(CommitError::Aborted(_))), "{late:?}");
        assert_eq!(committed(&kafka, &shop), Some(10), "after {tried} commits");
        tried += 1;
        first.hear().contains(&0)
    });
    // And both go on, each with its own.
    until("all partitions have one owner each", LIMIT, || {
        first.hear();
        second.hear();
        first.owned.is_disjoint(&second.owned) && first.owned.len() + second.owned.len() == 4 && first.owned.len() == 2
    });
    let [owner, other] = if first.owned.contains(&0) { [&mut first, &mut second] } else { [&mut second, &mut first] };
    until("its owner commits", LIMIT, || {
        other.hear();
        owner.hear();
        owner.commit(12).is_ok()
    });
    assert_eq!(committed(&kafka, &shop), Some(12));
    first.log.close(true);
    second.log.close(true);
}
