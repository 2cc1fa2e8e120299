//! What comes out, with the moment it came: Redis messages, WebSocket messages, decisions of the second stage.

use super::{matching::Push, traffic::Traffic};
use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tillflow_tests::{Kafka, Redis};
use tokio::runtime::Handle;
use tokio_tungstenite::{connect_async, tungstenite::Message};

/// How soon a listener sees that it is over.
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);
/// Sockets opened at a time.
const AT_A_TIME: usize = 32;
const KEYSPACE: &str = "__keyspace@0__:product:";

/// Text that came: when, where, what. Read only once all is over, so that listening takes little.
type Heard = Arc<Mutex<Vec<(Instant, String, String)>>>;

/// All who listen.
#[derive(Default)]
pub struct Ears {
    redis: Heard,
    sockets: Heard,
    decisions: Heard,
    written: Heard,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    open: Vec<tokio::task::JoinHandle<()>>,
}

impl Ears {
    /// Subscribes to the recommendations of all users.
    ///
    /// # Errors
    /// When Redis refuses.
    pub fn listen_to_redis(&mut self, redis: &Redis) -> Result<()> {
        let heard = self.redis.clone();
        self.subscribe(redis, "user:*:recommendations".to_owned(), heard)
    }

    /// Subscribes to changes of the products' read models: with products that nobody knows yet, their first neighbours.
    ///
    /// # Errors
    /// When Redis refuses.
    pub fn listen_to_read_models(&mut self, redis: &Redis) -> Result<()> {
        redis::cmd("CONFIG").arg("SET").arg("notify-keyspace-events").arg("Kh").exec(&mut redis.connect())?;
        let heard = self.decisions.clone();
        self.subscribe(redis, format!("{KEYSPACE}*"), heard)
    }

    fn subscribe(&mut self, redis: &Redis, pattern: String, heard: Heard) -> Result<()> {
        let (mut connection, stop) = (redis.connect(), self.stop.clone());
        connection.set_read_timeout(Some(LOOK))?;
        let (subscribed, wait) = std::sync::mpsc::channel();
        self.threads.push(std::thread::spawn(move || {
            let mut pubsub = connection.as_pubsub();
            let _ = subscribed.send(pubsub.psubscribe(&pattern));
            while !stop.load(Ordering::Acquire) {
                let Ok(message) = pubsub.get_message() else { continue };
                let (at, place) = (Instant::now(), message.get_channel_name().to_owned());
                heard.lock().push((at, place, message.get_payload().unwrap_or_default()));
            }
        }));
        Ok(wait.recv()??)
    }

    /// Opens a socket for each of these shoppers.
    ///
    /// # Errors
    /// When the gateway refuses one.
    pub fn listen_to_sockets(&mut self, runtime: &Handle, url: &str, traffic: &Traffic, shoppers: usize) -> Result<()> {
        let open = |shopper: usize| {
            let user = traffic.shopper(shopper);
            async move { anyhow::Ok((user.clone(), connect_async(format!("{url}/ws/recommendations/{user}")).await?.0)) }
        };
        let opened = stream::iter(0..shoppers).map(open).buffer_unordered(AT_A_TIME);
        let opened: Result<Vec<_>> = runtime.block_on(opened.try_collect());
        for (user, mut socket) in opened.context("opening sockets")? {
            let heard = self.sockets.clone();
            self.open.push(runtime.spawn(async move {
                while let Some(Ok(message)) = socket.next().await {
                    let at = Instant::now();
                    if let Message::Text(text) = message {
                        heard.lock().push((at, user.clone(), text.to_string()));
                    }
                }
            }));
        }
        Ok(())
    }

    /// Reads the decisions that are committed to a topic from now on; there, the key is the product.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn listen_to_decisions(&mut self, kafka: &Kafka, topic: &str) -> Result<()> {
        let heard = self.decisions.clone();
        self.read(kafka, topic, heard)
    }

    /// Reads the events themselves, as any consumer does: nothing that follows from them can come sooner.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn listen_to_events(&mut self, kafka: &Kafka, topic: &str) -> Result<()> {
        let heard = self.written.clone();
        self.read(kafka, topic, heard)
    }

    fn read(&mut self, kafka: &Kafka, topic: &str, heard: Heard) -> Result<()> {
        let mut config = kafka.client();
        config.set("group.id", "bench").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|t| t.partitions()) {
            let end = consumer.fetch_watermarks(topic, partition.id(), PATIENCE)?.1;
            list.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
        }
        consumer.assign(&list)?;
        let stop = self.stop.clone();
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let Some(Ok(message)) = consumer.poll(LOOK) else { continue };
                let (at, text) = (Instant::now(), |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned());
                heard.lock().push((at, text(message.key()), text(message.payload())));
            }
        }));
        Ok(())
    }

    /// How much came so far.
    pub fn len(&self) -> usize {
        [&self.redis, &self.sockets, &self.decisions].iter().map(|heard| heard.lock().len()).sum()
    }

    /// Ends listening.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.open.drain(..).for_each(|socket| socket.abort());
        // One that panicked heard less, which is counted.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }

    /// What Redis published to the shoppers.
    pub fn redis_pushes(&self, traffic: &Traffic) -> Vec<Push> {
        pushes(&self.redis, |channel| traffic.number(channel.strip_prefix("user:")?.strip_suffix(":recommendations")?))
    }

    /// What came over the sockets.
    pub fn socket_pushes(&self, traffic: &Traffic) -> Vec<Push> {
        pushes(&self.sockets, |user| traffic.number(user))
    }

    /// Orders as they were written, by their first product.
    pub fn orders(&self) -> Vec<(Instant, String)> {
        let heard = self.written.lock();
        let product = |text: &str| Some(serde_json::from_str::<Value>(text).ok()?.pointer("/items/0/product_id")?.as_str()?.to_owned());
        heard.iter().filter_map(|(at, _, text)| Some((*at, product(text)?))).collect()
    }

    /// Decisions about products.
    pub fn decisions(&self) -> Vec<(Instant, String)> {
        let heard = self.decisions.lock();
        heard.iter().map(|(at, place, _)| (*at, place.strip_prefix(KEYSPACE).unwrap_or(place).to_owned())).collect()
    }
}

fn pushes(heard: &Heard, shopper: impl Fn(&str) -> Option<usize>) -> Vec<Push> {
    let heard = heard.lock();
    let read = heard
        .iter()
        .filter_map(|(at, place, text)| Some(Push { at: *at, shopper: shopper(place)?, ids: serde_json::from_str(text).ok()? }));
    read.collect()
}
