//! What leaves the log: everything here follows the committed outputs and brings them to other systems, without ever
//! holding up the stream.

pub mod email;
pub mod redis;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_documentation_lists_every_metric_of_the_connectors_and_no_other() {
        let registry = prometheus::Registry::new();
        crate::redis::Metrics::new(&registry).unwrap();
        crate::email::Metrics::new(&registry).unwrap().results.with_label_values(&["sent"]).inc();
        let names: BTreeSet<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let table = include_str!("../../docs/metrics.md");
        let listed = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
        let ours = listed.filter(|name| ["tillflow_redis_", "tillflow_email_"].iter().any(|prefix| name.starts_with(prefix)));
        assert_eq!(ours.map(str::to_owned).collect::<BTreeSet<_>>(), names, "left: docs/metrics.md, right: what is registered");
    }
}
