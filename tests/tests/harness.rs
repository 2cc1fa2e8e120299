//! The tests' own tools, on the real thing: what a scenario relies on must itself hold.

use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::json;
use tillflow_tests::{Api, Browser, Fault, Kafka, Process, Proxy, Redis, Smtp, SmtpReply, scratch, until, until_some};

const LIMIT: Duration = Duration::from_secs(20);

fn transactional(kafka: &Kafka, brokers: &str, id: &str) -> BaseProducer {
    let mut config = kafka.client();
    config.set("bootstrap.servers", brokers).set("transactional.id", id).set("transaction.timeout.ms", "10000");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(LIMIT).unwrap();
    producer
}

#[test]
fn a_transaction_is_seen_once_committed_and_never_once_aborted() {
    let kafka = Kafka::shared();
    let topic = format!("{}events", kafka.prefix());
    kafka.create_topic(&topic, 2, &[("retention.ms", "-1")]);
    let producer = transactional(kafka, &kafka.bootstrap(), &topic);
    for (value, keep) in [("kept", true), ("dropped", false), ("kept too", true)] {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(&topic).partition(1).key("u1").payload(value)).map_err(|(error, _)| error).unwrap();
        producer.flush(LIMIT).unwrap();
        if keep {
            producer.commit_transaction(LIMIT).unwrap();
        } else {
            producer.abort_transaction(LIMIT).unwrap();
        }
    }
    let records = kafka.read(&topic);
    assert_eq!(records.iter().map(|record| record.text()).collect::<Vec<_>>(), ["kept", "kept too"]);
    assert_eq!(kafka.read_uncommitted(&topic).len(), 3);
    assert_eq!((records[0].partition, records[0].key()), (1, "u1"));
    assert_eq!(kafka.topics().get(&topic), Some(&2));
}

#[test]
fn keys_are_placed_as_java_clients_place_them() {
    let kafka = Kafka::shared();
    let topic = format!("{}placed", kafka.prefix());
    kafka.create_topic(&topic, 4, &[]);
    kafka.send(&topic, (0..200).map(|n| (format!("user{n}"), "{}")));
    for record in kafka.read(&topic) {
        let expected = tillflow_schemas::partition::partition(record.key().as_bytes(), 4);
        assert_eq!(u32::try_from(record.partition).unwrap(), expected, "{}", record.key());
    }
}

#[test]
fn a_killed_broker_comes_back_with_its_port_and_its_records() {
    let mut kafka = Kafka::start();
    kafka.create_topic("kept", 1, &[]);
    kafka.send("kept", [("a", "1")]);
    kafka.kill();
    kafka.start_again();
    kafka.send("kept", [("a", "2")]);
    kafka.restart();
    assert_eq!(kafka.read("kept").iter().map(|record| record.text().to_owned()).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn a_lost_commit_response_leaves_the_transaction_committed() {
    let kafka = Kafka::start();
    let proxy = kafka.proxy();
    kafka.create_topic("paid", 1, &[]);
    let producer = transactional(&kafka, &proxy.address(), "lost-response");
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to("paid").key("o1").payload("10.00")).map_err(|(error, _)| error).unwrap();
    producer.flush(LIMIT).unwrap();
    proxy.fail(Api::EndTxn, Fault::SwallowResponse, 1);
    // The client waits for an answer that never comes, and doesn't know what became of its transaction.
    let unknown = producer.commit_transaction(Duration::from_millis(1500));
    assert!(unknown.is_err(), "a commit without an answer is no commit to its client");
    assert_eq!(proxy.happened(), 1);
    assert_eq!(kafka.read("paid").len(), 1);
}

#[test]
fn a_lost_commit_request_is_sent_again_by_the_client() {
    let kafka = Kafka::start();
    let proxy = kafka.proxy();
    kafka.create_topic("paid", 1, &[]);
    let producer = transactional(&kafka, &proxy.address(), "lost-request");
    proxy.fail(Api::EndTxn, Fault::LoseRequest, 1);
    proxy.fail(Api::EndTxn, Fault::LoseResponse, 1);
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to("paid").key("o1").payload("10.00")).map_err(|(error, _)| error).unwrap();
    producer.commit_transaction(LIMIT).unwrap();
    assert_eq!(proxy.happened(), 2);
    assert_eq!(kafka.read("paid").len(), 1);
}

#[test]
fn a_consumer_behind_the_proxy_survives_an_outage() {
    let kafka = Kafka::start();
    let proxy = kafka.proxy();
    kafka.create_topic("seen", 1, &[]);
    let mut config = kafka.client();
    config.set("bootstrap.servers", proxy.address()).set("group.id", "outage").set("reconnect.backoff.max.ms", "200");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("seen", 0, Offset::Beginning).unwrap();
    consumer.assign(&all).unwrap();
    let next = || {
        until_some("a record", LIMIT, || {
            let message = consumer.poll(Duration::from_millis(100))?.ok()?;
            Some(String::from_utf8(message.payload()?.to_vec()).unwrap())
        })
    };
    kafka.send("seen", [("k", "before")]);
    assert_eq!(next(), "before");
    proxy.go_down();
    kafka.send("seen", [("k", "during")]);
    proxy.come_up();
    assert_eq!(next(), "during");
}

#[test]
fn redis_is_real_and_forgets_when_killed() {
    let mut redis = Redis::start();
    let set = |redis: &Redis| redis::cmd("SET").arg("a").arg("1").query::<()>(&mut redis.connect());
    set(&redis).unwrap();
    redis.kill();
    redis.start_again();
    let found: Option<String> = redis::cmd("GET").arg("a").query(&mut redis.connect()).unwrap();
    assert_eq!(found, None);
    set(&redis).unwrap();
}

#[test]
fn a_proxy_before_redis_cuts_and_refuses() {
    let redis = Redis::start();
    let proxy = Proxy::tcp(redis.port());
    let client = redis::Client::open(format!("redis://{}", proxy.address())).unwrap();
    let ping = |connection: &mut redis::Connection| redis::cmd("PING").query::<String>(connection);
    let mut connection = client.get_connection().unwrap();
    assert_eq!(ping(&mut connection).unwrap(), "PONG");
    proxy.go_down();
    assert!(ping(&mut connection).is_err());
    assert!(client.get_connection().and_then(|mut connection| ping(&mut connection)).is_err());
    proxy.come_up();
    assert_eq!(ping(&mut client.get_connection().unwrap()).unwrap(), "PONG");
}

#[test]
fn the_mail_server_keeps_what_it_accepts_and_refuses_when_told() {
    use std::io::{BufRead, BufReader, Write};
    let smtp = Smtp::start();
    smtp.reply_next(SmtpReply::Refuse("451 4.3.0 Try again later".into()));
    let mut stream = std::net::TcpStream::connect(smtp.address()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mail = "Subject: Your\r\n  cart\r\nTo: a@example.com\r\n\r\n..hello\r\n.\r\n";
    let mut codes = Vec::new();
    for say in
        ["", "EHLO me", "MAIL FROM:<shop@example.com>", "RCPT TO:<a@example.com>", "DATA", mail, "RCPT TO:<a@example.com>", "DATA", mail]
    {
        if !say.is_empty() {
            stream.write_all(say.as_bytes()).unwrap();
            if !say.ends_with('\n') {
                stream.write_all(b"\r\n").unwrap();
            }
        }
        let last = lines.by_ref().map(Result::unwrap).find(|line| line.as_bytes()[3] == b' ').unwrap();
        codes.push(last[..3].to_owned());
    }
    assert_eq!(codes, ["220", "250", "250", "250", "354", "451", "250", "354", "250"]);
    let mails = smtp.wait_for(1, LIMIT);
    assert_eq!((mails[0].from.as_str(), mails[0].to.as_slice()), ("shop@example.com", ["a@example.com".to_owned()].as_slice()));
    assert_eq!(mails[0].header("subject").as_deref(), Some("Your cart"));
    assert!(mails[0].data.ends_with("\n.hello\n"), "{:?}", mails[0].data);
}

#[test]
fn a_browser_runs_a_page() {
    let browser = Browser::start();
    let mut page = browser.open("data:text/html,<meta name=viewport content=width=device-width><h1>Till</h1><script>setTimeout(() => document.title = 'flow', 50)</script>");
    page.wait_until("document.title === 'flow'");
    assert_eq!(page.text(), "Till");
    assert_eq!(page.errors(), &[] as &[String]);
    page.evaluate("setTimeout(() => { throw new Error('oops') }); 0");
    until("the error is seen", LIMIT, || page.errors().iter().any(|error| error.contains("oops")));
    page.prefer_dark(true);
    assert_eq!(page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches"), json!(true));
    page.resize(390, 844, true);
    assert_eq!(page.evaluate("innerWidth"), json!(390));
}

#[test]
fn a_process_is_frozen_thawed_killed_and_never_left_behind() {
    let files = scratch("process");
    let mut process = Process::spawn("sleeper", files.path(), Path::new("sleep"), |command| {
        command.arg("1000");
    });
    let state = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let id = process.id();
    process.freeze();
    until("it stands still", LIMIT, || state(id) == Some('T'));
    process.thaw();
    until("it goes on", LIMIT, || state(id) == Some('S'));
    assert!(!process.terminate(LIMIT).success());
    // A child lives on when the thread that asked for it ends, and dies with its handle.
    let (name, directory) = ("second", files.path().to_owned());
    let mut other = std::thread::spawn(move || {
        Process::spawn(name, &directory, Path::new("sleep"), |command| {
            command.arg("1000");
        })
    })
    .join()
    .unwrap();
    assert!(other.is_running());
    let id = other.id();
    drop(other);
    assert_eq!(state(id), None);
}
