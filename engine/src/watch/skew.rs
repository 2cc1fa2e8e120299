//! One task that does much more than the others of its group here.

use super::{Task, Warning};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Over how long work is compared.
const STRETCH: Duration = Duration::from_secs(60);
/// Less work than this, in records, says little.
const LEAST: u64 = 5_000;

/// What each task had processed when the stretch began, and what was found at the end of the last one.
#[derive(Default)]
pub struct Skew {
    since: Option<Instant>,
    before: BTreeMap<(String, u32), u64>,
    found: Vec<Warning>,
}

impl Skew {
    /// Looks at what the tasks have processed.
    pub fn look(&mut self, now: Instant, tasks: &[Task<'_>]) -> Vec<Warning> {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) < STRETCH) {
            return self.found.clone();
        }
        let first = self.since.replace(now).is_none();
        let before = std::mem::replace(&mut self.before, tasks.iter().map(|(id, view)| ((*id).clone(), view.processed)).collect());
        let mut groups: BTreeMap<&str, Vec<(u32, u64)>> = BTreeMap::new();
        for (id, view) in tasks {
            let done = view.processed.saturating_sub(before.get(*id).copied().unwrap_or(0));
            groups.entry(&id.0).or_default().push((id.1, done));
        }
        let groups = groups.into_iter().filter(|_| !first);
        self.found = groups.filter_map(|(group, tasks)| judge(group, &tasks)).collect();
        self.found.clone()
    }
}

/// More than half-way between a fair share and all of it is too much for one of several.
fn judge(group: &str, tasks: &[(u32, u64)]) -> Option<Warning> {
    let total: u64 = tasks.iter().map(|(_, done)| done).sum();
    let (partition, most) = *tasks.iter().max_by_key(|(_, done)| *done)?;
    let count = tasks.len() as u64;
    if count < 2 || total < LEAST || 2 * count * most <= (count + 1) * total {
        return None;
    }
    Some(Warning {
        kind: "skew",
        place: format!("{group} {partition}"),
        what: format!("{group} {partition} did {} % of the work of the {count} tasks of {group} here", most * 100 / total),
        mend: "if hot_key names a key there, look at that one; else at the producers: keys must be placed by murmur2 (Java's default; \
               partitioner=murmur2_random in librdkafka)"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::TaskView;

    fn run(done: [u64; 4]) -> Vec<Warning> {
        let (mut skew, start) = (Skew::default(), Instant::now());
        let ids: Vec<_> = (0..4).map(|n| ("customers".to_owned(), n)).collect();
        let views = |factor: u64| done.map(|processed| TaskView { processed: 1_000_000 + processed * factor, ..TaskView::example() });
        let (before, after) = (views(0), views(1));
        assert_eq!(skew.look(start, &ids.iter().zip(&before).collect::<Vec<_>>()), [], "the first look has nothing to compare with");
        skew.look(start + STRETCH, &ids.iter().zip(&after).collect::<Vec<_>>())
    }

    #[test]
    fn a_task_with_most_of_the_work_is_told() {
        let found = run([1_000, 9_000, 1_000, 1_000]);
        assert!(found.len() == 1 && found[0].place == "customers 1" && found[0].what.contains("did 75 %"), "{found:?}");
    }

    #[test]
    fn an_uneven_share_and_little_work_are_no_cause() {
        assert_eq!(run([1_000, 2_000, 3_000, 4_000]), []);
        assert_eq!(run([0, 900, 0, 0]), []);
    }
}
