//! `tillflow run`: task groups, connectors and gateway until SIGTERM.

use crate::{
    commands::{PlaceArgs, Usage},
    config::Config,
    running::{Part, Running},
};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tillflow_engine::Wall;
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `tillflow run`.
#[derive(Args, Debug)]
#[command(
    long_about = "Run task groups, connectors and the HTTP gateway until SIGTERM or Ctrl-C; then drain and commit within two seconds.\n\n\
    Without brokers everything lies in the data directory. With brokers, topics that are missing are created, a new group starts at \
    the earliest record, and instances with the same app_id share the partitions.",
    after_help = "Examples:\n  tillflow run\n  tillflow run --brokers localhost:9092 --redis-url redis://localhost:6379\n  \
    curl -d '{\"event_type\":\"product_viewed\",\"user_id\":\"u1\",\"product_id\":\"p1\"}' localhost:8080/v1/events"
)]
pub struct RunArgs {
    /// Run only these task groups: customers, products
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Address of the HTTP gateway
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Another address for /healthz, /readyz and /metrics alone
    #[arg(long, value_name = "HOST:PORT")]
    health_listen: Option<String>,
    /// Redis to publish recommendations to and keep read models in
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// Fail where topics are missing, instead of creating them
    #[arg(long)]
    no_create: bool,
    /// Give this instance's place up when it stops: the others take its partitions over at once, instead of once its session
    /// has ended. For scaling down; a restart then moves partitions twice, and after a crash takes as long as a session
    #[arg(long)]
    leave: bool,
}

impl RunArgs {
    /// The keys that flags set.
    pub fn flags(&self) -> BTreeMap<String, Value> {
        let mut flags = self.place.flags();
        let mut set = |key: &str, value: Option<Value>| flags.extend(value.map(|v| (key.to_owned(), v)));
        set("listen", self.listen.as_ref().map(|l| json!(l)));
        set("health_listen", self.health_listen.as_ref().map(|l| json!(l)));
        set("redis.url", self.redis_url.as_ref().map(|u| json!(u)));
        set("topics.create", self.no_create.then(|| json!(false)));
        flags
    }
}

/// Runs until a signal comes or something fails.
///
/// # Errors
/// What failed.
pub fn run(args: &RunArgs, config: &Config) -> Result<()> {
    let groups = tillflow_processors::groups(&config.settings());
    if let Some(unknown) = args.groups.iter().find(|name| !groups.iter().any(|g| g.name == **name)) {
        return Err(Usage(format!("--groups: there is no group '{unknown}'; there are customers and products")).into());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut running = Running::start(config, &groups, Wall::Real, Part { groups: args.groups.clone(), leave: args.leave }).await?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
            reason = running.failed() => {
                let _ = running.stop().await;
                return Err(reason);
            }
        }
        running.stop().await
    })
}
