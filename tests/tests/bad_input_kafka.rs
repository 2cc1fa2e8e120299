//! Input over Kafka, through the whole program. Of bad records each one's fault is said, its bytes are kept, and the good
//! ones before and after it in its partition count once; good ones count however they are written.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tillflow_schemas::{
    Codec, ConfluentRegistry, EntryKind, Event, SchemaRegistry, Timestamp, avro, framing::frame, partition::partition, registry::subject,
};
use tillflow_tests::{
    Kafka, Record, Run, Tillflow,
    cluster::{PARTITIONS, Shop},
    until,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Writes a record into a partition, whatever its key says.
fn put(producer: &BaseProducer, topic: &str, at: u32, key: Option<&[u8]>, value: &[u8]) {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(at as i32).payload(value);
    if let Some(key) = key {
        record = record.key(key);
    }
    producer.send(record).map_err(|(e, _)| e).unwrap();
}

fn producer(kafka: &Kafka) -> BaseProducer {
    // Compressed, what is far larger than a topic takes goes through.
    let mut config = kafka.client();
    config.set("message.max.bytes", "100000000").set("enable.idempotence", "true").create().unwrap()
}

/// An id of this name that belongs into a partition.
fn id_in(name: &str, at: u32) -> String {
    (0..).map(|n| format!("{name}-{n}")).find(|id| partition(id.as_bytes(), PARTITIONS) == at).unwrap()
}

fn order(user: &str, id: &str, total: &str) -> Value {
    let items = json!([{"product_id": "tea", "quantity": 1}]);
    json!({"event_type": "order_completed", "user_id": user, "order_id": id, "timestamp": Timestamp::wall(), "total_amount": total, "items": items})
}

/// A record that is to end in the dead letters.
struct Bad {
    topic: &'static str,
    value: Vec<u8>,
    processor: &'static str,
    says: &'static str,
}

fn bad(topic: &'static str, value: impl Into<Vec<u8>>, says: &'static str) -> Bad {
    Bad { topic, value: value.into(), processor: "decoder", says }
}

/// Of what only its processor can refuse.
fn refused(topic: &'static str, value: &Value, processor: &'static str, says: &'static str) -> Bad {
    Bad { topic, value: value.to_string().into_bytes(), processor, says }
}

/// An event of one's own with a change; `@` in it stands for the bare word.
fn event(change: Value, word: &str) -> Vec<u8> {
    let mut event = order("ada", "x", "10.00");
    event.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    event.to_string().replace("\"@\"", word).into_bytes()
}

/// Every kind of record that can't be processed. `schema` is the id of `user_events`' schema.
fn table(schema: u32) -> Vec<Bad> {
    let (events, long) = ("user_events", "x".repeat(10_000));
    let framed = |id: u32, datum: &[u8]| [&[0][..], &id.to_be_bytes(), datum].concat();
    let (now, mut not_utf_8) = (Timestamp::wall(), br#"{"event_type": "#.to_vec());
    not_utf_8.extend(b"\"\xff\xfe\"}");
    vec![
        // What is no value at all.
        bad(events, b"hello", "neither a JSON object"),
        bad(events, b"{\"event_type\": \"page_viewed\"", "not JSON"),
        bad(events, not_utf_8, "not UTF-8"),
        bad(events, b"", "an empty value"),
        bad(events, framed(schema, b"")[..3].to_vec(), "Avro"),
        bad(events, framed(schema, b""), ""),
        bad(events, framed(schema, b"\x02\x80"), ""),
        bad(events, framed(987_654, b"\x02\x02a"), "schema id 987654, which the registry does not know"),
        // Missing and wrong types.
        bad(events, r#"{"event_type": "product_viewed"}"#, "timestamp: is missing"),
        bad(events, event(json!({"event_type": "product_viewed"}), ""), "product_id: is missing"),
        bad(events, event(json!({"event_type": 7}), ""), "event_type: invalid type"),
        bad(events, event(json!({"items": "tea"}), ""), "items: invalid type"),
        bad("inventory", json!({"product_id": "tea", "stock_level": "many", "last_updated": now}).to_string(), "stock_level: invalid type"),
        bad(
            "subscription_events",
            json!({"user_id": "ada", "timestamp": now, "plan_id": "basic_box", "action": "eaten"}).to_string(),
            "action: 'eaten' is none of",
        ),
        bad(
            "loyalty_commands",
            json!({"command_id": "c", "user_id": "ada", "timestamp": now, "action": "redeem"}).to_string(),
            "reward_id: is missing",
        ),
        // Numbers.
        bad(events, event(json!({"total_amount": "@"}), "NaN"), "total_amount: not JSON"),
        bad(events, event(json!({"total_amount": "@"}), "-Infinity"), "total_amount: not JSON"),
        bad(events, event(json!({"total_amount": "NaN"}), ""), "total_amount: 'NaN' is not an amount"),
        bad(events, event(json!({"total_amount": "@"}), "1e999"), "total_amount: '1e999' is not an amount"),
        bad(
            events,
            event(json!({"items": [{"product_id": "tea", "quantity": -3}]}), ""),
            "items[0].quantity: -3 is not between 1 and 1000000",
        ),
        bad(
            events,
            event(json!({"items": [{"product_id": "tea", "quantity": 1_000_001}]}), ""),
            "items[0].quantity: 1000001 is not between",
        ),
        bad(events, event(json!({"total_amount": "123456789012345678901234567890"}), ""), "is not an amount of at most 28 digits"),
        bad(events, event(json!({"total_amount": "-0.01"}), ""), "total_amount: -0.01 is not between 0 and 10^12"),
        bad(events, event(json!({"currency": "EURO"}), ""), "currency: 'EURO' is not a currency code"),
        // Times.
        bad(events, event(json!({"timestamp": "1999-12-31T23:59:59Z"}), ""), "is before 2000-01-01"),
        bad(events, event(json!({"timestamp": "yesterday"}), ""), "timestamp: 'yesterday' is not an RFC 3339 time"),
        refused(
            events,
            &json!({"event_type": "page_viewed", "user_id": "ada", "timestamp": "2999-01-01T00:00:00Z"}),
            "clock",
            "more than 5 minutes in the future",
        ),
        // Ids.
        bad(events, event(json!({"user_id": "a\u{0}b"}), ""), "user_id: holds the control character U+0000"),
        bad(events, event(json!({"order_id": long}), ""), "order_id: 10000 bytes long; at most 512"),
        bad(
            "loyalty_commands",
            json!({"command_id": "c", "timestamp": now, "action": "spin", "spin_id": "s"}).to_string(),
            "user_id: is missing",
        ),
        bad("inventory", json!({"stock_level": 5, "last_updated": now}).to_string(), "product_id: is missing"),
        // Size: near what the broker takes, and an order of one item too many.
        bad(events, event(json!({"note": "x".repeat(9_900_000)}), ""), "at most 8388608 are read"),
        bad(
            events,
            event(json!({"items": vec![json!({"product_id": "tea", "quantity": 1}); 10_001]}), ""),
            "10001 items; an order holds at most 10,000",
        ),
        // What its processor refuses.
        refused(
            events,
            &{
                let mut foreign = order("ada", "y", "10.00");
                foreign["currency"] = json!("XTS");
                foreign
            },
            "loyalty",
            "XTS",
        ),
        refused(
            "subscription_events",
            &json!({"user_id": "ada", "timestamp": now, "plan_id": "basic_box", "action": "paused"}),
            "subscriptions",
            "`started` comes first",
        ),
    ]
}

/// Each account's entries, earned by orders.
fn earned(kafka: &Kafka, shop: &Shop) -> BTreeMap<String, Vec<i64>> {
    let mut earned: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in kafka.read(&shop.topic("loyalty_updates")) {
        let entry = record.json();
        if entry["kind"] == "earn" {
            earned.entry(record.key().to_owned()).or_default().push(entry["points"].as_i64().unwrap());
        }
    }
    earned
}

fn instance(shop: &Shop, id: &str) -> Run {
    shop.instance(id, 1).set("time.wait_s", 10).set("shop.currency", "EUR")
}

fn start(kafka: &Kafka) -> (Shop, Tillflow) {
    let shop = Shop::new(kafka, &kafka.bootstrap());
    let mut instance = instance(&shop, "one").spawn();
    instance.wait_until_ready();
    (shop, instance)
}

/// What a counter stands at, its labels given in their order.
fn counted(instance: &Tillflow, counter: &str) -> u64 {
    let metrics = instance.get("/metrics").text().unwrap();
    let line = metrics.lines().find_map(|l| l.strip_prefix(counter)?.strip_prefix(' '));
    line.map_or(0, |n| n.parse().unwrap())
}

#[test]
fn every_bad_record_is_a_dead_letter_that_says_why_and_the_good_ones_around_it_count_once() {
    let kafka = Kafka::shared();
    let (shop, mut instance) = start(kafka);
    let subject = format!("/subjects/{}/versions/latest", tillflow_schemas::registry::subject(&shop.prefix, "user_events"));
    let table = table(u32::try_from(instance.json(&subject)["id"].as_u64().unwrap()).unwrap());
    let writer = producer(kafka);
    let (home, mut good) = (partition(b"ada", PARTITIONS), Vec::new());
    for (n, bad) in table.iter().enumerate() {
        // Without a key, so that nothing but the value can give an id.
        for (when, value) in [("before", None), ("bad", Some(&bad.value)), ("after", None)] {
            let user = id_in(&format!("{when}{n}"), home);
            let own = order(&user, &format!("{when}{n}"), "10.00").to_string();
            match value {
                Some(value) => put(&writer, &shop.topic(bad.topic), home, None, value),
                None => {
                    put(&writer, &shop.topic("user_events"), home, Some(user.as_bytes()), own.as_bytes());
                    good.push(user);
                }
            }
        }
    }
    writer.flush(LIMIT).unwrap();
    until("all is processed", LIMIT, || shop.is_drained());

    let earned = earned(kafka, &shop);
    assert_eq!(earned.keys().collect::<std::collections::BTreeSet<_>>(), good.iter().collect());
    assert!(earned.values().all(|points| points == &[10]), "{earned:?}");

    let letters = kafka.read(&shop.topic("dead_letters"));
    let mut inputs: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
    for (n, bad) in table.iter().enumerate() {
        let records = inputs.entry(bad.topic).or_insert_with(|| kafka.read(&shop.topic(bad.topic)));
        let source = records.iter().find(|r| r.value.as_deref() == Some(&bad.value)).unwrap();
        let (at, offset) = (source.partition.to_string(), source.offset.to_string());
        let of_it: Vec<_> = letters
            .iter()
            .filter(|l| {
                (l.header("source_topic"), l.header("source_partition"), l.header("source_offset"))
                    == (Some(bad.topic), Some(&at), Some(&offset))
            })
            .collect();
        let [letter] = of_it[..] else {
            panic!("{n} ({}): {} dead letters: {:?}", bad.says, of_it.len(), of_it.iter().map(|l| &l.headers).collect::<Vec<_>>())
        };
        let error = letter.header("error").unwrap();
        assert!(error.contains(bad.says) && !error.is_empty() && error.len() < 500, "{n}: says {error}; expected {}", bad.says);
        assert_eq!((letter.header("processor"), letter.header("attempts")), (Some(bad.processor), Some("1")), "{n}: {error}");
        assert_eq!(letter.key, source.key, "{n}");
        let kept = letter.value.as_deref().unwrap();
        match letter.header("truncated") {
            None => assert_eq!(kept, bad.value, "{n}"),
            Some(length) => {
                assert!(bad.value.starts_with(kept) && length == bad.value.len().to_string(), "{n}: {length}");
                assert_eq!(letter.header("sha256").map(str::len), Some(64), "{n}");
            }
        }
    }
    assert_eq!(letters.len(), table.len(), "and nothing else is one");
    assert!(instance.stop().success(), "{}", instance.stderr());
}

#[test]
fn records_count_whatever_compresses_them() {
    let kafka = Kafka::shared();
    let (shop, mut instance) = start(kafka);
    let home = partition(b"ada", PARTITIONS);
    let compressions = ["none", "gzip", "snappy", "lz4", "zstd"];
    for compression in compressions {
        let writer: BaseProducer = kafka.client().set("compression.type", compression).create().unwrap();
        put(
            &writer,
            &shop.topic("user_events"),
            home,
            Some(b"ada"),
            &event(json!({"order_id": compression, "note": "x".repeat(9_999)}), ""),
        );
        writer.flush(LIMIT).unwrap();
    }
    until("all is processed", LIMIT, || shop.is_drained());
    assert_eq!(earned(kafka, &shop), BTreeMap::from([("ada".to_owned(), vec![10; compressions.len()])]));
    assert!(kafka.read(&shop.topic("dead_letters")).is_empty());
    assert!(instance.stop().success(), "{}", instance.stderr());
}

#[test]
fn with_a_registry_avro_is_read_and_outputs_are_avro() {
    let kafka = Kafka::shared();
    let shop = Shop::new(kafka, &kafka.bootstrap());
    // Any registry in Confluent's form will do; another shop's built-in one is.
    let mut registry_of = Tillflow::run().spawn();
    registry_of.wait_until_ready();
    let mut instance = instance(&shop, "one").set("registry.url", registry_of.url()).spawn();
    instance.wait_until_ready();

    let registry = Arc::new(ConfluentRegistry::new(registry_of.url(), LIMIT, LIMIT).unwrap());
    let schema = avro::built_in("user_event").unwrap();
    let id = registry.register(&subject(&shop.prefix, "user_events"), schema.text()).unwrap();
    let datum = schema.encode(order("ada", "o1", "10.00").to_string().as_bytes()).unwrap();
    let writer = producer(kafka);
    let home = partition(b"ada", PARTITIONS);
    put(&writer, &shop.topic("user_events"), home, Some(b"ada"), &frame(id, &datum));
    put(&writer, &shop.topic("user_events"), home, Some(b"ada"), order("ada", "o2", "10.00").to_string().as_bytes());
    writer.flush(LIMIT).unwrap();
    until("all is processed", LIMIT, || shop.is_drained());

    let (catalog, codec) = (&shop.cluster.catalog, Codec::with_registry(registry, &shop.prefix));
    let told = |topic: &str| kafka.read(&shop.topic(topic)).into_iter().filter_map(|r| r.value).collect::<Vec<_>>();
    let entries = told("loyalty_updates");
    assert!(!entries.is_empty() && entries.iter().all(|value| value.starts_with(&[0])), "{entries:?}");
    let earned = entries.iter().filter_map(|value| match codec.decode(catalog.get("loyalty_updates")?, None, Some(value)).unwrap() {
        Event::LoyaltyUpdate(entry) => (entry.kind == EntryKind::Earn).then_some((entry.points, entry.order_id?.as_str().to_owned())),
        other => panic!("{other:?}"),
    });
    assert_eq!(earned.collect::<Vec<_>>(), ["o1", "o2"].map(|order| (10, order.to_owned())));
    // What the list of topics states as JSON stays so.
    assert!(told("notifications").iter().all(|value| value.starts_with(b"{")));
    assert!(told("dead_letters").is_empty());
    assert!(instance.stop().success(), "{}", instance.stderr());
}

#[test]
fn records_in_a_foreign_partition_without_key_or_with_a_wrong_one_are_put_where_they_belong_and_counted() {
    let kafka = Kafka::shared();
    let (shop, mut instance) = start(kafka);
    let (writer, events) = (producer(kafka), shop.topic("user_events"));
    let home = partition(b"ada", PARTITIONS);
    let away = (home + 1) % PARTITIONS;
    for (id, at, key) in [
        ("foreign", away, Some(&b"ada"[..])),
        ("no key", home, None),
        ("no key, foreign", away, None),
        ("wrong key", partition(b"ben", PARTITIONS), Some(b"ben")),
        ("no text, foreign", away, Some(b"\xff\x00")),
    ] {
        put(&writer, &events, at, key, order("ada", id, "10.00").to_string().as_bytes());
    }
    let moved = 3 + u32::from(partition(b"ben", PARTITIONS) != home);
    // A guest's event is nobody's; its own id places it, so that it meets itself when it comes again.
    let guest = event(json!({"order_id": "guest's", "event_id": "g", "user_id": null}), "");
    let guest_home = partition(b"g", PARTITIONS);
    put(&writer, &events, guest_home, None, &guest);
    put(&writer, &events, (guest_home + 1) % PARTITIONS, None, &guest);
    // The largest that is read, far away from home; a large order; and what no version before a later one knows.
    put(&writer, &events, away, None, &event(json!({"order_id": "huge", "note": "x".repeat(8 * 1024 * 1024 - 400)}), ""));
    let items: Vec<Value> = (0..10_000).map(|n| json!({"product_id": format!("p{n}"), "quantity": 1})).collect();
    put(&writer, &events, home, Some(b"ada"), &event(json!({"order_id": "large", "items": items}), ""));
    let moon = json!({"event_type": "moon_landed", "user_id": "ada", "timestamp": Timestamp::wall(), "crew": [1, {"deep": null}]});
    put(&writer, &events, home, Some(b"ada"), moon.to_string().as_bytes());
    // The same order once more, at home.
    put(&writer, &events, home, Some(b"ada"), order("ada", "foreign", "10.00").to_string().as_bytes());
    writer.flush(LIMIT).unwrap();
    until("all is processed", LIMIT, || shop.is_drained());

    let letters = kafka.read(&shop.topic("dead_letters"));
    assert!(letters.is_empty(), "{:?}", letters.iter().map(|l| &l.headers).collect::<Vec<_>>());
    assert_eq!(earned(kafka, &shop), BTreeMap::from([("ada".to_owned(), vec![10; 7])]));
    let metrics = instance.get("/metrics").text().unwrap();
    let counted = |line: &str| assert!(metrics.lines().any(|l| l == line), "{line}:\n{metrics}");
    counted(&format!("tillflow_rekeyed_total{{topic=\"user_events\"}} {}", moved + 2));
    counted("tillflow_unknown_events_total{group=\"customers\"} 1");
    assert!(instance.stop().success(), "{}", instance.stderr());
}

#[test]
fn bad_rules_and_products_over_kafka_are_dead_letters_and_the_former_ones_go_on() {
    let kafka = Kafka::shared();
    let (shop, mut instance) = start(kafka);
    let writer = producer(kafka);
    let records = [
        ("pricing_rules", json!({"scope": "default", "lwo": 5}), "low"),
        ("pricing_rules", json!({"scope": "default", "low": 500, "high": 5}), "high"),
        ("products", json!({"product_id": "tea", "name": "Tea", "category": "tea", "base_price": "-1"}), "base_price"),
        ("products", json!({"product_id": "cup", "name": "Cup", "category": "tea"}), "base_price: is missing"),
        (
            "products",
            json!({"product_id": "tea", "name": "Tea", "category": "tea", "base_price": "1", "min_price": "9", "max_price": "2"}),
            "min_price",
        ),
    ];
    for (topic, value, _) in &records {
        let key = value.as_object().unwrap().values().find_map(Value::as_str).unwrap();
        let id = ["scope", "plan_id", "product_id"].iter().find_map(|f| value[f].as_str()).unwrap_or(key);
        put(&writer, &shop.topic(topic), partition(id.as_bytes(), PARTITIONS), Some(id.as_bytes()), value.to_string().as_bytes());
    }
    let ada = partition(b"ada", PARTITIONS);
    put(&writer, &shop.topic("user_events"), ada, Some(b"ada"), order("ada", "o1", "10.00").to_string().as_bytes());
    writer.flush(LIMIT).unwrap();
    until("all is processed", LIMIT, || shop.is_drained());
    let letters = kafka.read(&shop.topic("dead_letters"));
    for (topic, value, says) in &records {
        let said: Vec<_> = letters
            .iter()
            .filter(|l| l.value.as_deref() == Some(value.to_string().as_bytes()))
            .map(|l| l.header("error").unwrap())
            .collect();
        assert!(said.len() == 1 && said[0].contains(says), "{topic} {value}: {said:?}");
    }
    assert_eq!(letters.len(), records.len());
    assert_eq!(earned(kafka, &shop)["ada"], [10]);
    assert!(instance.stop().success(), "{}", instance.stderr());
}

#[test]
fn bad_definitions_which_every_instance_reads_are_dead_letters_once_and_counted() {
    let kafka = Kafka::shared();
    let shop = Shop::new(kafka, &kafka.bootstrap());
    let mut instances = ["one", "two"].map(|id| instance(&shop, id).set("kafka.session_timeout_s", 6).spawn());
    instances.iter_mut().for_each(Tillflow::wait_until_ready);
    let writer = producer(kafka);
    let text = |value: Value| value.to_string().into_bytes();
    let definitions = [
        (
            "plans",
            text(json!({"plan_id": "empty", "name": "Empty", "price": "1", "interval": "month", "features": {}})),
            "features: is empty",
        ),
        (
            "plans",
            text(json!({"plan_id": "odd", "name": "Odd", "price": "1", "interval": "fortnight", "features": {"a": 1}})),
            "interval: 'fortnight' is not",
        ),
        ("rewards", b"[1]".to_vec(), "neither a JSON object"),
        ("rewards", text(json!({"reward_id": "mug", "name": "Mug", "points": 0})), "points: 0 is not above 0"),
        ("challenges", text(json!({"challenge_id": "c", "name": "C"})), "missing field"),
        ("campaigns", text(json!({"campaign_id": "own", "trigger": "the moon"})), "own"),
        ("segment_definitions", text(json!({"segment_id": "vip", "all": [{"field": "age", "op": ">", "value": 3}]})), "vip.all[0]"),
        ("campaigns", b"{".to_vec(), "not JSON"),
        ("challenges", b"\x00\x00".to_vec(), "Avro"),
        ("badges", Vec::new(), "an empty value"),
        ("segment_definitions", b"\"x\"".to_vec(), "neither a JSON object"),
        ("templates", b"[]".to_vec(), "neither a JSON object"),
    ];
    for (n, (topic, value, _)) in definitions.iter().enumerate() {
        put(&writer, &shop.topic(topic), n as u32 % PARTITIONS, Some(format!("d{n}").as_bytes()), value);
    }
    let good = text(json!({"plan_id": "tea_box", "name": "Tea", "price": "5", "interval": "month", "features": {"monthly_box": true}}));
    put(&writer, &shop.topic("plans"), 0, Some(b"tea_box"), &good);
    writer.flush(LIMIT).unwrap();
    until("all is processed", LIMIT, || shop.is_drained());

    let letters = || {
        let read = kafka.read(&shop.topic("dead_letters"));
        read.iter()
            .map(|l| {
                (l.header("source_topic").unwrap().to_owned(), l.value.clone().unwrap_or_default(), l.header("error").unwrap().to_owned())
            })
            .collect::<Vec<_>>()
    };
    let before = letters();
    for (topic, value, says) in &definitions {
        let of_it: Vec<_> = before.iter().filter(|(t, v, _)| t == topic && v == value).collect();
        assert!(of_it.len() == 1 && of_it[0].2.contains(says), "{topic} {}: {of_it:?}", String::from_utf8_lossy(value));
    }
    assert_eq!(before.len(), definitions.len(), "{before:?}");
    let of = |topic: &str| -> u64 {
        let counter = format!("tillflow_dead_letters_total{{processor=\"decoder\",topic=\"{topic}\"}}");
        instances.iter().map(|i| counted(i, &counter)).sum()
    };
    assert_eq!((of("plans"), of("rewards"), of("badges")), (2, 2, 1));

    // The good one counts, and neither a crash nor a new owner buries anything twice.
    let started =
        json!({"user_id": "ada", "plan_id": "tea_box", "action": "started", "subscription_id": "s", "timestamp": Timestamp::wall()});
    assert_eq!(instances[0].post("/v1/topics/subscription_events", started).status(), 202);
    instances[0].kill();
    let entitled = |at: &Tillflow| {
        let answer = at.get("/v1/users/ada/entitlements/monthly_box");
        answer.status().is_success() && answer.text().unwrap().contains("tea_box")
    };
    until("the other one has it all", LIMIT, || entitled(&instances[1]));
    instances[0].start_again();
    instances[0].wait_until_ready();
    until("all is processed", LIMIT, || shop.is_drained());
    assert_eq!(letters(), before);
}

#[test]
fn of_an_input_whose_clients_are_not_trusted_every_record_is_rekeyed_and_counts_once() {
    let kafka = Kafka::shared();
    let shop = Shop::new(kafka, &kafka.bootstrap());
    let mut instance = instance(&shop, "one").set("topics.untrusted", "[user_events]").spawn();
    instance.wait_until_ready();
    let (writer, events) = (producer(kafka), shop.topic("user_events"));
    let home = partition(b"ada", PARTITIONS);
    // Bought, given back, bought again: at home, where only the order of the partition says which came first.
    let at = Timestamp::wall();
    let event =
        |kind: &str, id: &str| json!({"event_type": kind, "user_id": "ada", "order_id": id, "timestamp": at, "total_amount": "10.00"});
    let cancelled = |id: &str| json!({"event_type": "order_cancelled", "user_id": "ada", "order_id": id, "timestamp": at});
    for n in 0..10 {
        put(&writer, &events, home, Some(b"ada"), event("order_completed", &format!("o{n}")).to_string().as_bytes());
        put(&writer, &events, home, Some(b"ada"), cancelled(&format!("o{n}")).to_string().as_bytes());
    }
    put(&writer, &events, (home + 1) % PARTITIONS, Some(b"ada"), event("order_completed", "last").to_string().as_bytes());
    writer.flush(LIMIT).unwrap();
    assert_eq!(instance.post("/v1/events", event("order_completed", "over HTTP")).status(), 202);
    until("all is processed", LIMIT, || shop.is_drained());
    assert_eq!(counted(&instance, "tillflow_rekeyed_total{topic=\"user_events\"}"), 22);
    assert_eq!(earned(kafka, &shop)["ada"], [10; 12]);
    let refunds = kafka.read(&shop.topic("loyalty_updates")).iter().filter(|r| r.json()["kind"] == "refund").count();
    assert_eq!(refunds, 10, "each cancellation came after its order");
    assert!(kafka.read(&shop.topic("dead_letters")).is_empty());
    assert!(instance.stop().success(), "{}", instance.stderr());
}
