//! `tillflow demo`: the main job on the embedded log with a simulated shop, in a world whose clock runs faster.

mod shop;

use crate::{
    commands::Usage,
    config::Config,
    replay,
    running::{Part, Running},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use shop::{DemoShop, Post};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};
use tillflow_engine::Wall;
use tillflow_schemas::Timestamp;

/// How often the shop posts.
const TICK: Duration = Duration::from_millis(250);

/// Arguments of `tillflow demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// End by itself after this much real time, such as 20s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// Print nothing but one JSON line at the end
    #[arg(long)]
    headless: bool,
    /// Address of the console and the HTTP gateway; headless takes a free port
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Seconds that pass in the demo each second
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    speed: u32,
    /// Events a second
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
    /// Keep the data in this directory, which must hold none yet; a temporary one otherwise
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Another shop for another number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn duration(text: &str) -> Result<Duration, String> {
    let number = |suffix: &str| text.strip_suffix(suffix).and_then(|n| n.parse::<u64>().ok());
    let seconds = number("s").or_else(|| number("m").map(|m| m * 60)).or_else(|| text.parse().ok());
    seconds.filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(|| format!("'{text}' is not a time such as 20s or 5m"))
}

/// Runs the demo in a fresh data directory.
///
/// # Errors
/// When something can't start, or the gateway refuses what the shop posts.
pub fn run(args: &DemoArgs, config: &Config) -> Result<()> {
    let temporary = tempfile::tempdir().context("a temporary directory")?;
    let mut config = config.clone();
    config.data_dir = args.data_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    if config.data_dir.join("embedded").exists() {
        let why = format!("--data-dir {} holds a shop already; `tillflow run` goes on with it", config.data_dir.display());
        return Err(Usage(why).into());
    }
    config.brokers = None;
    config.log = None;
    // What it decides is worth nothing tomorrow: waiting for the disk would only show the disk.
    config.commit.fsync = false;
    config.gateway.listen =
        args.listen.clone().unwrap_or_else(|| if args.headless { "127.0.0.1:0".into() } else { config.gateway.listen.clone() });
    set_up_mail(&mut config);
    let summary = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(live(args, &config))?;
    println!("{summary}");
    Ok(())
}

/// Mails go to a folder, never to a mail server: nobody in this shop exists.
fn set_up_mail(config: &mut Config) {
    config.email.remove("smtp");
    let sender = json!({
        "from": "Tillflow Demo Shop <hello@shop.example>", "postal_address": "1 Example Street, 00000 Nowhere",
        "unsubscribe_url": format!("http://{}/unsubscribe", config.gateway.listen), "secret": "demo",
    });
    config.email.entry("sender").or_insert(sender);
    config.email.entry("outbox").or_insert_with(|| json!(config.data_dir.join("outbox")));
}

/// Mails in the outbox.
fn mails(config: &Config) -> usize {
    let folder = config.mail().ok().and_then(|mail| mail.outbox);
    let files = folder.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|e| e == "eml")).count()
}

async fn live(args: &DemoArgs, config: &Config) -> Result<Value> {
    let wall = Wall::scaled(Timestamp::wall(), args.speed);
    let groups = tillflow_processors::groups(&config.settings());
    let mut running = Running::start(config, &groups, wall.clone(), Part::default()).await?;
    let log = running.embedded.clone().context("the demo runs on the embedded log")?;
    let base = format!("http://{}", running.address);
    if !args.headless {
        eprintln!("A simulated shop is open: its console is at {base}/ (Ctrl-C ends it).");
        eprintln!("One second here is {} minutes there.", f64::from(args.speed) / 60.0);
    }
    let ended = tokio::select! {
        posted = keep_shop(args, &wall, &base) => posted,
        reason = running.failed() => Err(reason),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if ended.is_ok() {
        wait_until_drained(&running).await?;
    }
    running.stop().await?;
    ended?;
    let events: i64 = count(&log, "user_event");
    let outputs: BTreeMap<_, _> = tokio::task::spawn_blocking(move || replay::output::write(&log, None)).await??;
    Ok(json!({"events": events, "outputs": outputs, "mails": mails(config)}))
}

fn count(log: &tillflow_engine::log::embedded::Embedded, schema: &str) -> i64 {
    let Some((topic, t)) = log.catalog().topics().iter().enumerate().find(|(_, t)| t.schema == schema) else { return 0 };
    (0..t.partitions).map(|partition| log.end(tillflow_engine::log::TopicPartition { topic, partition })).sum()
}

/// Keeps the shop open until its time is over.
async fn keep_shop(args: &DemoArgs, wall: &Wall, base: &str) -> Result<()> {
    let started = Instant::now();
    let client = reqwest::Client::new();
    let mut shop = DemoShop::new(args.seed);
    for post in shop.opening(wall.now()) {
        send(&client, base, &post).await?;
    }
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = wall.now();
    let mut owed = 0.0;
    while args.length.is_none_or(|length| started.elapsed() < length) {
        ticks.tick().await;
        let now = wall.now();
        owed += f64::from(args.rate) * TICK.as_secs_f64();
        let rate = owed as usize;
        owed -= rate as f64;
        let elapsed = Duration::from_millis(now.since(last).unsigned_abs());
        if rate > 0 {
            for post in shop.happenings(now, elapsed, rate) {
                send(&client, base, &post).await?;
            }
            last = now;
        }
    }
    Ok(())
}

async fn send(client: &reqwest::Client, base: &str, post: &Post) -> Result<()> {
    let answer = client
        .post(format!("{base}{}", post.path))
        .json(&post.records)
        .send()
        .await
        .with_context(|| format!("posting to {}", post.path))?;
    if !answer.status().is_success() {
        bail!("{} answers {}: {}", post.path, answer.status(), answer.text().await.unwrap_or_default());
    }
    Ok(())
}

async fn wait_until_drained(running: &Running) -> Result<()> {
    // The clocks go on, so there may always be a little left; a few seconds are enough for what the shop sent.
    for _ in 0..100 {
        if running.engine.is_drained()? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
