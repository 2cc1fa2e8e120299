//! The gateway's own metrics.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};
use std::{sync::Arc, time::Instant};

use crate::App;

/// Counters of what comes in and what goes out.
pub(crate) struct Metrics {
    pub registry: Registry,
    records: IntCounterVec,
    unknown: IntCounter,
    requests: HistogramVec,
    forwarded: IntCounterVec,
    pub sockets: IntGauge,
    pub pushes: IntCounter,
    pub skipped: IntCounter,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::naming(&mut Vec::new())
    }

    /// The same; `names` gets the name of each.
    fn naming(names: &mut Vec<String>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            records: IntCounterVec::new(
                Opts::new("tillflow_gateway_records_total", "Records that came in over HTTP"),
                &["schema", "outcome"],
            )?,
            unknown: IntCounter::new("tillflow_gateway_unknown_events_total", "User events taken whose event_type is not known")?,
            requests: HistogramVec::new(
                HistogramOpts::new("tillflow_gateway_request_seconds", "How long requests took, until the answer's first byte")
                    .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]),
                &["method", "route", "status"],
            )?,
            forwarded: IntCounterVec::new(
                Opts::new("tillflow_gateway_forwarded_total", "Questions passed on to the instance that owns the key"),
                &["outcome"],
            )?,
            sockets: IntGauge::new("tillflow_gateway_sockets", "Open WebSockets and event streams")?,
            pushes: IntCounter::new("tillflow_gateway_pushes_total", "Recommendations sent to open sockets")?,
            skipped: IntCounter::new(
                "tillflow_gateway_skipped_total",
                "Committed records the gateway could not follow; sockets were brought up to date by query",
            )?,
        };
        let all: [Box<dyn Collector>; 7] = [
            Box::new(metrics.records.clone()),
            Box::new(metrics.unknown.clone()),
            Box::new(metrics.requests.clone()),
            Box::new(metrics.forwarded.clone()),
            Box::new(metrics.sockets.clone()),
            Box::new(metrics.pushes.clone()),
            Box::new(metrics.skipped.clone()),
        ];
        for metric in all {
            names.extend(metric.desc().iter().map(|d| d.fq_name.clone()));
            metrics.registry.register(metric)?;
        }
        Ok(metrics)
    }

    /// Records of one request, as they were taken or refused.
    pub fn taken(&self, schema: &str, accepted: usize, refused: usize) {
        self.records.with_label_values(&[schema, "accepted"]).inc_by(accepted as u64);
        self.records.with_label_values(&[schema, "refused"]).inc_by(refused as u64);
    }

    /// A question passed on to another instance.
    pub fn forwarded(&self, answered: bool) {
        self.forwarded.with_label_values(&[if answered { "answered" } else { "failed" }]).inc();
    }

    /// A user event of an unknown type.
    pub fn unknown(&self) {
        self.unknown.inc();
    }

    /// User events taken so far.
    pub fn events(&self) -> u64 {
        self.records.with_label_values(&["user_event", "accepted"]).get()
    }
}

/// Measures a request, by the route it matched rather than its path: there are as many paths as users.
pub(crate) async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let response = next.run(request).await;
    let method = if matches!(method.as_str(), "GET" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "HEAD") { method.as_str() } else { "other" };
    let status = response.status();
    let labels = [method, &route, status.as_str()];
    app.metrics.requests.with_label_values(&labels).observe(start.elapsed().as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_documentation_lists_every_metric_of_the_gateway_and_no_other() {
        let table = include_str!("../../docs/metrics.md");
        let listed = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
        let listed: BTreeSet<_> = listed.filter(|name| name.starts_with("tillflow_gateway_")).collect();
        let mut names = Vec::new();
        Metrics::naming(&mut names).unwrap();
        assert_eq!(listed, names.iter().map(String::as_str).collect(), "left: docs/metrics.md, right: what is registered");
    }
}
