//! `tillflow doctor`: what an instance needs, looked at one by one, and how to mend what is wrong.

use super::{Out, PlaceArgs, config::problems, place};
use crate::{
    config::{Config, LogKind},
    running,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use owo_colors::{OwoColorize, Style};
use rdkafka::producer::{BaseProducer, Producer};
use serde::Serialize;
use std::{
    io::IsTerminal,
    net::{TcpListener, TcpStream, ToSocketAddrs},
    path::Path,
    time::Duration,
};
use tillflow_engine::log::kafka::{Difference, Plan, UNREPLICATED, plan, unfit};
use tillflow_schemas::{
    Catalog,
    registry::{self, Verdict},
};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Free bytes of the data directory below which it warns, and fails.
const ROOM: (u64, u64) = (5 << 30, 500 << 20);

/// Arguments of `tillflow doctor`.
#[derive(Args, Debug)]
#[command(
    long_about = "Check what an instance needs, and say how to mend what is wrong: the configuration with the systems' sections, the data \
    directory and its disk, the address to listen on, and where they are configured Kafka's brokers and topics, the schema registry, \
    Redis and the mail server. Nothing is changed.\n\nExits with 1 where something would keep `tillflow run` from working.",
    after_help = "Examples:\n  tillflow doctor\n  tillflow doctor --brokers localhost:9092 --json"
)]
pub struct DoctorArgs {
    /// Print one JSON object a check: check, status (ok, warning, failed), detail, mend
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Warning,
    Failed,
}

/// What one check came to.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// A finding before its check has a name.
struct Found(Status, String, Option<String>);

/// Looks at one thing.
type Check = fn(&Config) -> Found;

fn fine(detail: impl Into<String>) -> Found {
    Found(Status::Ok, detail.into(), None)
}
fn warning(detail: impl Into<String>, mend: impl Into<String>) -> Found {
    Found(Status::Warning, detail.into(), Some(mend.into()))
}
fn failed(detail: impl Into<String>, mend: impl Into<String>) -> Found {
    Found(Status::Failed, detail.into(), Some(mend.into()))
}

/// Checks everything.
///
/// # Errors
/// When something would keep an instance from running.
pub fn run(args: &DoctorArgs, config: &Config, out: Out<'_>) -> Result<()> {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let checks: [(&'static str, Check); 8] = [
        ("configuration", configuration),
        ("data directory", directory),
        ("disk", disk),
        ("listen", listen),
        ("kafka", kafka),
        ("schema registry", schema_registry),
        ("redis", redis),
        ("mail", mail),
    ];
    let mut broken = 0;
    for (check, look) in checks {
        let Found(status, detail, mend) = look(config);
        broken += u32::from(status == Status::Failed);
        let finding = Finding { check, status, detail, mend };
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&finding)?)?;
        } else {
            show(&finding, colours, out)?;
        }
        // Some take seconds: each is seen at once.
        out.flush()?;
    }
    if broken > 0 {
        bail!("{broken} of {} checks failed", checks.len());
    }
    Ok(())
}

fn show(finding: &Finding, colours: bool, out: Out<'_>) -> Result<()> {
    let (word, style) = match finding.status {
        Status::Ok => ("ok", Style::new().green()),
        Status::Warning => ("warning", Style::new().yellow()),
        Status::Failed => ("FAILED", Style::new().red().bold()),
    };
    let style = if colours { style } else { Style::new() };
    writeln!(out, "{}  {:<16} {}", format_args!("{word:<7}").style(style), finding.check, finding.detail)?;
    if let Some(mend) = &finding.mend {
        writeln!(out, "         → {mend}")?;
    }
    Ok(())
}

fn configuration(config: &Config) -> Found {
    let problems = [problems(config), running::problems(config)].concat();
    if problems.is_empty() {
        return fine("every key and section can be run with");
    }
    failed(problems.join("; "), "`tillflow config` lists each key with its meaning and where its value came from")
}

fn directory(config: &Config) -> Found {
    let dir = &config.data_dir;
    let shown = dir.display();
    if let Err(e) = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir).map(drop)) {
        return failed(format!("{shown} can't be written to: {e}"), "give --data-dir a directory that this user may write to");
    }
    if config.log_kind() == LogKind::Kafka || place::existing(dir).is_err() {
        return fine(format!("{shown} can be written to"));
    }
    match place::embedded(config) {
        Ok(_) => fine(format!("{shown} holds an embedded log that can be opened")),
        Err(e) if place::is_held(&e) => {
            warning(format!("{shown}: another process runs on it"), "two can't; stop that one before you start another")
        }
        Err(e) => failed(format!("{e:#}"), "bring back a backup: tillflow restore DIR"),
    }
}

fn disk(config: &Config) -> Found {
    let mut at: &Path = &config.data_dir;
    while !at.exists() {
        at = at.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    }
    match fs4::available_space(at) {
        Ok(free) if free < ROOM.1 => {
            failed(format!("{} MB are free", free >> 20), "an instance stops processing when the disk is full: make room")
        }
        Ok(free) if free < ROOM.0 => {
            warning(format!("{:.1} GB are free", free as f64 / 1e9), "state grows with users and products: watch tillflow_store_bytes")
        }
        Ok(free) => fine(format!("{:.0} GB are free", free as f64 / 1e9)),
        Err(e) => warning(format!("it can't be told how much is free: {e}"), "look with df"),
    }
}

fn listen(config: &Config) -> Found {
    let address = &config.gateway.listen;
    let Some(resolved) = address.to_socket_addrs().ok().and_then(|mut all| all.next()) else {
        return failed(format!("{address} is no address"), "set listen to HOST:PORT, such as 127.0.0.1:8080");
    };
    if let Err(e) = config.gateway.check(resolved) {
        return failed(e.to_string(), "set keys.server and keys.write, or listen on 127.0.0.1");
    }
    match TcpListener::bind(resolved) {
        Ok(_) if config.log_kind() == LogKind::Kafka && matches!(config.gateway.address(), Ok(None)) => {
            let mend = "set advertised to HOST:PORT; with one instance alone it is not needed";
            warning(format!("{address} is free, but other instances can't be told to ask this one there"), mend)
        }
        Ok(_) => fine(format!("{address} is free")),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            warning(format!("{address} is taken, maybe by a running instance"), "stop that, or give --listen another port")
        }
        Err(e) => failed(format!("{address}: {e}"), "choose an address of this machine"),
    }
}

fn kafka(config: &Config) -> Found {
    if config.log_kind() == LogKind::Embedded {
        return fine("not configured: the log is embedded");
    }
    let look = || -> Result<Plan> {
        let kafka = place::cluster(config)?;
        let (plan, unfit) = (plan(&kafka)?, unfit(&kafka));
        if !unfit.is_empty() {
            bail!("{}", unfit.join("; "));
        }
        // What every commit needs: a coordinator, and the right to a transactional id.
        let writer: BaseProducer = kafka.transactional(&format!("{}.doctor", kafka.settings.app_id)).create()?;
        writer.init_transactions(ANSWER).context("transactions")?;
        Ok(plan)
    };
    let brokers = config.brokers.as_deref().unwrap_or_default();
    let plan = match look() {
        Ok(plan) => plan,
        Err(e) => return failed(format!("{e:#}"), "check brokers and kafka.options, and the settings and rights that docs/kafka.md lists"),
    };
    let (missing, others): (Vec<_>, Vec<_>) = plan.differences.iter().partition(|d| matches!(d, Difference::Missing { .. }));
    let list = |of: &[&Difference]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match (missing.len(), others.is_empty()) {
        (0, true) if !plan.unreplicated.is_empty() => warning(
            format!("{brokers} answers, gives transactions, and has every topic as declared; {} have one replica", plan.unreplicated.len()),
            UNREPLICATED,
        ),
        (0, true) => fine(format!("{brokers} answers, gives transactions, and has every topic as declared")),
        (_, false) => failed(list(&others), "see `tillflow topics plan`"),
        (_, true) if !config.topics.create => failed(list(&missing), "create them: tillflow topics apply; or set topics.create"),
        (n, true) => {
            warning(format!("{brokers} answers; {n} topics are missing"), "`tillflow run` creates them, `tillflow topics apply` too")
        }
    }
}

fn schema_registry(config: &Config) -> Found {
    let registry = match config.registry.connect() {
        Ok(Some(registry)) => registry,
        Ok(None) => return fine("not configured: outputs are JSON"),
        Err(e) => return failed(e.to_string(), "set registry.url to http://HOST:PORT"),
    };
    let look = || -> Result<_> { Ok(registry::check(&*registry, &Catalog::built_in(config.topics.partitions)?, &config.topics.prefix)?) };
    match look() {
        Err(e) => failed(format!("{e:#}"), "check registry.url; without a registry outputs are JSON"),
        Ok(reports) if reports.iter().any(|r| matches!(r.verdict, Verdict::Broken { .. })) => {
            failed("it holds schemas that do not go with these", "see `tillflow schemas check`")
        }
        Ok(reports) => fine(format!("answers; {} subjects go with what it has", reports.len())),
    }
}

fn redis(config: &Config) -> Found {
    let Some(url) = &config.redis.url else { return fine("not configured") };
    let mend = "check redis.url; the stream does not wait for Redis, but nobody hears from it there";
    let ping = || -> ::redis::RedisResult<String> {
        let client = ::redis::Client::open(url.as_str())?;
        let mut connection = client.get_connection_with_timeout(ANSWER)?;
        ::redis::cmd("PING").query(&mut connection)
    };
    match ping() {
        Ok(_) => fine("answers"),
        Err(e) => failed(format!("does not answer: {e}"), mend),
    }
}

fn mail(config: &Config) -> Found {
    let Some(smtp) = config.email.get("smtp") else {
        let outbox = config.email.get("outbox").and_then(|o| o.as_str());
        return outbox.map_or_else(
            || warning("no mail leaves: triggers stay in email_triggers", "set email.smtp or email.outbox, and email.sender"),
            |folder| fine(format!("mails are written into {folder}")),
        );
    };
    let of = |key: &str| smtp.get(key).and_then(|v| v.as_str().map(str::to_owned).or_else(|| v.as_u64().map(|n| n.to_string())));
    let Some(host) = of("host") else { return failed("email.smtp has no host", "set email.smtp.host") };
    let address = format!("{host}:{}", of("port").unwrap_or_else(|| "587".into()));
    let reached = address.to_socket_addrs().and_then(|mut all| {
        let first = all.next().ok_or_else(|| std::io::Error::other("the name has no address"))?;
        TcpStream::connect_timeout(&first, ANSWER)
    });
    match reached {
        Ok(_) => fine(format!("{address} can be reached")),
        Err(e) => failed(format!("{address}: {e}"), "check email.smtp; mails wait until it answers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn findings(config: &Config) -> (bool, Vec<Value>) {
        let mut out = Vec::new();
        let done = run(&DoctorArgs { json: true, place: PlaceArgs::default() }, config, &mut out).is_ok();
        (done, String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect())
    }

    #[test]
    fn each_fault_has_its_check_and_a_way_to_mend_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        config.gateway.listen = "127.0.0.1:0".into();
        assert!(findings(&config).0);
        config.redis.url = Some("redis://127.0.0.1:1".into());
        config.pricing.insert("low".into(), 500.into());
        config.email.insert("smtp".into(), serde_json::json!({"host": "127.0.0.1", "port": 1}));
        config.data_dir = "/dev/null/x".into();
        let (done, found) = findings(&config);
        assert!(!done);
        for check in ["configuration", "data directory", "redis", "mail"] {
            let finding = found.iter().find(|f| f["check"] == check).unwrap();
            assert!(finding["status"] == "failed" && finding["mend"].is_string(), "{finding}");
        }
    }
}
