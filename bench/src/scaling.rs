//! Rate and memory by the number of users and products, and by the bytes of state that lie on disk.

use crate::{
    Contender, SEED, figures, fill,
    load::{catalogue, events, first_stock, stock_changes},
    peer::{
        Mode,
        run::{self, PARTITIONS},
    },
    plot, product,
    recovery::seed,
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    str::FromStr,
};
use tillflow_tests::{Kafka, cluster::Shop};

/// The peers' table whose rows are seeded.
const PEERS_ROWS: &str = "peer.sessions";
/// A table that the product has not: its store is as large, and nobody reads it.
const PRODUCTS_ROWS: &str = "bench.rows";

/// Rate and memory by users, products and bytes of state. A shop has products before it has traffic: the catalogue and its stock are
/// taken first, and the instance is started anew before events count.
#[derive(clap::Args)]
pub struct Scaling {
    /// Events of a run.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Users and products to choose from, a run each.
    #[arg(long, value_delimiter = ',', default_value = "10000x1000,200000x20000,1000000x50000,5000000x200000")]
    points: Vec<Point>,
    /// MB of rows that lie in the customers' stores beforehand; a run each, with the users and products of the second point.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    state_mb: Vec<u64>,
    /// Who runs: `bounded`, `exact`, `product`.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bounded,product")]
    contenders: Vec<Contender>,
    /// Workers a task group.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Draws what --json holds of these runs into an SVG file, and runs nothing.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// So many users and products.
#[derive(Clone, Copy, Debug)]
struct Point {
    users: usize,
    products: usize,
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |text: &str| text.parse().map_err(|_| format!("'{text}' is not a number"));
        let (users, products) = text.split_once('x').ok_or("expected USERSxPRODUCTS, such as 10000x1000")?;
        Ok(Self { users: read(users)?, products: read(products)? })
    }
}

impl Scaling {
    /// Runs it all, or draws what was seen.
    ///
    /// # Errors
    /// When an instance fails, or there is nothing to draw.
    pub fn run(&self, json: &Path) -> Result<()> {
        if let Some(file) = &self.plot {
            return plot::draw_scaling(json, file);
        }
        let kafka = Kafka::setup().for_load().heap_mb(1_024).property("log.cleaner.enable", "false").start();
        self.warm_up(&kafka)?;
        println!(
            "{:<26}{:>10}{:>10}{:>12}{:>15}{:>12}{:>16}{:>15}",
            "", "users", "products", "state (MB)", "catalogue (s)", "events/s", "CPU-s/M events", "peak RSS (MB)"
        );
        let mut runs = Vec::new();
        let typical = self.points.get(1).or(self.points.first()).copied();
        let grown = self.state_mb.iter().filter_map(|megabytes| Some((typical?, *megabytes)));
        for (point, megabytes) in self.points.iter().map(|point| (*point, 0)).chain(grown) {
            for contender in &self.contenders {
                runs.push(self.one(&kafka, *contender, point, megabytes)?);
            }
        }
        figures::keep(json, json!({"scaling": {"events": self.events, "workers": self.workers, "runs": runs}}))
    }

    /// A broker that has just started compiles for a while, which would be the first run's disadvantage.
    fn warm_up(&self, kafka: &Kafka) -> Result<()> {
        let (input, output) = ("warm.in", "warm.out");
        kafka.create_topic(input, PARTITIONS as i32, &[]);
        fill(kafka, input, events(self.events, 10_000, 1_000, SEED), &mut |_| Ok(()))?;
        crate::bare_copy(kafka, input, output)?;
        forget(kafka, "warm.");
        Ok(())
    }

    fn one(&self, kafka: &Kafka, contender: Contender, point: Point, megabytes: u64) -> Result<Value> {
        let (catalogued, mut drained, prefix) = match contender {
            Contender::Exact => self.peers(kafka, Mode::Exact, point, megabytes)?,
            Contender::Bounded => self.peers(kafka, Mode::Bounded, point, megabytes)?,
            Contender::Product => self.default_rules(kafka, point, megabytes)?,
            Contender::Copy | Contender::Streams => bail!("only exact, bounded and product are run by users, products and state"),
        };
        forget(kafka, &prefix);
        let seen: HashSet<String> = self.traffic(point).map(|(user, _)| user).collect();
        let cpu = number(&drained, "cpu_s") - number(&drained, "cpu_s_until_ready");
        let fields = drained.as_object_mut().context("figures")?;
        fields.insert("catalogue_s".into(), number(&catalogued, "seconds").into());
        fields.insert("cpu_s".into(), cpu.into());
        fields.insert("contender".into(), contender.key().into());
        fields.insert("users".into(), point.users.into());
        fields.insert("users_seen".into(), seen.len().into());
        fields.insert("products".into(), point.products.into());
        fields.insert("state_mb".into(), megabytes.into());
        self.tell(contender, point, megabytes, &drained);
        Ok(drained)
    }

    /// What the catalogue took, what the events took, and the topics' prefix.
    fn peers(&self, kafka: &Kafka, mode: Mode, point: Point, megabytes: u64) -> Result<(Value, Value, String)> {
        let prefix = kafka.prefix();
        run::create_topics(kafka, &prefix, &[mode])?;
        let inventory = run::input(&prefix, "inventory")?;
        kafka.send(&inventory, first_stock(point.products));
        let catalogued = run::drain(kafka, &prefix, mode, self.workers)?;
        seed::grow(&catalogued.data(), "customers", PARTITIONS, PEERS_ROWS, megabytes)?;
        kafka.send(&inventory, stock_changes(self.events, point.products, SEED));
        fill(kafka, &run::input(&prefix, "user_event")?, self.traffic(point), &mut |_| Ok(()))?;
        let drained = run::drain_in(catalogued.files, kafka, &prefix, mode, self.workers)?;
        Ok((catalogued.figures, drained.figures, prefix))
    }

    /// The same of the product.
    fn default_rules(&self, kafka: &Kafka, point: Point, megabytes: u64) -> Result<(Value, Value, String)> {
        let shop = Shop::new(kafka, &kafka.bootstrap());
        kafka.send(&shop.topic("products"), catalogue(point.products).map(|(id, product)| (id, product.to_string())));
        kafka.send(&shop.topic("inventory"), first_stock(point.products));
        let mut instance = shop.instance("bench", self.workers).spawn();
        let catalogued = product::drain(&shop, &mut instance)?;
        instance.stop();
        seed::grow(&instance.files().join("tillflow-data"), "customers", PARTITIONS, PRODUCTS_ROWS, megabytes)?;
        kafka.send(&shop.topic("inventory"), stock_changes(self.events, point.products, SEED));
        fill(kafka, &shop.topic("user_events"), self.traffic(point), &mut |_| Ok(()))?;
        instance.start_again();
        let drained = product::drain(&shop, &mut instance)?;
        Ok((catalogued, drained, shop.prefix.clone()))
    }

    fn traffic(&self, point: Point) -> impl Iterator<Item = (String, String)> {
        events(self.events, point.users, point.products, SEED)
    }

    fn tell(&self, contender: Contender, point: Point, megabytes: u64, drained: &Value) {
        let number = |field: &str| number(drained, field);
        println!(
            "{:<26}{:>10}{:>10}{:>12}{:>15.1}{:>12.0}{:>16.1}{:>15}",
            contender.title(),
            point.users,
            point.products,
            megabytes,
            number("catalogue_s"),
            self.events as f64 / number("seconds"),
            number("cpu_s") * 1e6 / self.events as f64,
            number("peak_rss_mb"),
        );
    }
}

fn number(figures: &Value, field: &str) -> f64 {
    figures.get(field).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// Deletes the topics of a run: the next one's broker is no fuller.
fn forget(kafka: &Kafka, prefix: &str) {
    let topics: Vec<_> = kafka.topics().into_keys().filter(|name| name.starts_with(prefix)).collect();
    let names: Vec<_> = topics.iter().map(String::as_str).collect();
    kafka.administer(async |admin, options| admin.delete_topics(&names, options).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_users_and_products() {
        let point: Point = "5000000x200000".parse().unwrap();
        assert_eq!((point.users, point.products), (5_000_000, 200_000));
        assert!("5000000".parse::<Point>().unwrap_err().contains("10000x1000"));
        assert!("manyx1".parse::<Point>().unwrap_err().contains("many"));
    }
}
