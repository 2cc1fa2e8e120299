//! `tillflow topics` on a real Kafka: what the topics it creates are set to, which ones it widens and which it leaves.

use rdkafka::admin::{ConfigResource, ConfigSource, ResourceSpecifier};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tillflow_schemas::{Catalog, Cleanup, Role, Topic};
use tillflow_tests::{Kafka, Run, Tillflow, cluster::PARTITIONS, until};

const LIMIT: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn topics(command: &str, kafka: &Kafka, prefix: &str, partitions: u32) -> Run {
    Tillflow::command(["topics", command]).on_kafka(&kafka.bootstrap(), prefix, "one").set("topics.partitions", partitions)
}

/// What a topic is to be set to by its line of the list and by docs/kafka.md.
fn declared(topic: &Topic) -> BTreeMap<&'static str, String> {
    let mut settings = BTreeMap::from([("message.timestamp.type", "LogAppendTime".into()), ("max.message.bytes", "10485760".into())]);
    match topic.cleanup {
        Cleanup::Compact => settings.extend([
            ("cleanup.policy", "compact".into()),
            ("max.compaction.lag.ms", (7 * DAY).as_millis().to_string()),
            ("delete.retention.ms", DAY.as_millis().to_string()),
            ("segment.bytes", "67108864".into()),
        ]),
        Cleanup::Delete => settings.extend([
            ("cleanup.policy", "delete".into()),
            ("retention.ms", topic.retention.map_or("-1".into(), |kept| kept.as_millis().to_string())),
        ]),
    }
    settings
}

/// What was set for a topic itself, whatever the broker's defaults are.
fn set(resource: &ConfigResource) -> BTreeMap<&str, String> {
    let own = resource.entries.iter().filter(|e| e.source == ConfigSource::DynamicTopic);
    own.map(|e| (e.name.as_str(), e.value.clone().unwrap_or_default())).collect()
}

#[test]
fn every_topic_it_creates_is_set_as_declared_whatever_the_brokers_defaults_are() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let _ = topics("apply", kafka, &prefix, PARTITIONS).finish().ok();
    let catalog = Catalog::built_in(PARTITIONS).unwrap();
    let names: Vec<_> = catalog.topics().iter().map(|t| format!("{prefix}{}", t.name)).collect();
    until("all are there", LIMIT, || names.iter().all(|name| kafka.topics().contains_key(name)));
    let asked: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let answers = kafka.administer(async |admin, options| admin.describe_configs(&asked, options).await);
    assert_eq!(answers.len(), names.len());
    for (topic, answer) in catalog.topics().iter().zip(answers) {
        let resource = answer.unwrap_or_else(|code| panic!("{}: {code}", topic.name));
        assert_eq!(set(&resource), declared(topic), "{}", topic.name);
        assert_eq!(kafka.topics()[&format!("{prefix}{}", topic.name)], topic.partitions as usize, "{}", topic.name);
    }
}

#[test]
fn outputs_are_widened_and_what_state_is_keyed_by_is_named_and_left() {
    let kafka = Kafka::shared();
    let prefix = kafka.prefix();
    let _ = topics("apply", kafka, &prefix, 2).finish().ok();
    until("they are there", LIMIT, || topics("plan", kafka, &prefix, 2).finish().ok().stdout.contains("every topic as declared"));

    let partial = topics("apply", kafka, &prefix, PARTITIONS).finish();
    partial.says(1, &["differences are left"]);
    assert!(partial.stdout.contains(&format!("leave   {prefix}user_events has 2 partitions, 4 are declared")), "{}", partial.stdout);
    let catalog = Catalog::built_in(PARTITIONS).unwrap();
    let narrow = |topic: &Topic| (topic.role != Role::Output && topic.partitions == PARTITIONS).then_some(2);
    let expected = || catalog.topics().iter().map(|t| (t, narrow(t).unwrap_or(t.partitions as usize)));
    until("outputs are wide", LIMIT, || {
        let there = kafka.topics();
        expected().all(|(topic, partitions)| there.get(&format!("{prefix}{}", topic.name)) == Some(&partitions))
    });
    let plan: Value = serde_json::from_str(&topics("plan", kafka, &prefix, PARTITIONS).arg("--json").finish().ok().stdout).unwrap();
    let left: Vec<_> = expected()
        .filter(|(topic, partitions)| topic.partitions as usize != *partitions)
        .map(|(topic, has)| json!({"difference": "too_few", "topic": format!("{prefix}{}", topic.name), "has": has, "wants": PARTITIONS, "keyed": true, "apply": null}))
        .collect();
    assert!(!left.is_empty());
    assert_eq!(plan, json!(left));
}
