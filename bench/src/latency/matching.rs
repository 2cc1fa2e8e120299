//! Which message was whose: by shopper and order for pushes, by product for decisions.

use super::traffic::{Event, Traffic};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A push that came.
#[derive(Clone, Debug)]
pub struct Push {
    /// When.
    pub at: Instant,
    /// Whose.
    pub shopper: usize,
    /// Its ids, best first.
    pub ids: Vec<String>,
}

/// What became of the events that were measured.
#[derive(Debug, Default)]
pub struct Matched {
    /// How long each took that got its message, from the moment when it was due to be sent.
    pub took: Vec<Duration>,
    /// How many got none.
    pub missing: usize,
}

/// Events that were due from `first` on, up to `end`, as numbers.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The first; those before warm up.
    pub first: usize,
    /// After the last.
    pub end: usize,
}

/// Gives each view its push. Pushes to a shopper come in the order of the views, so each goes to the first open view that it
/// fits; views before that one had none.
pub fn pushes(traffic: &Traffic, started: Instant, measured: Measured, heard: &[Push], of: impl Fn(usize) -> bool) -> Matched {
    let mut came: HashMap<usize, Vec<&Push>> = HashMap::new();
    heard.iter().for_each(|push| came.entry(push.shopper).or_default().push(push));
    let mut matched = Matched::default();
    let mut open: HashMap<usize, Vec<usize>> = HashMap::new();
    for n in 0..measured.end {
        if let Event::View { shopper, .. } = traffic.event(n)
            && of(shopper)
        {
            open.entry(shopper).or_default().push(n);
        }
    }
    for (shopper, views) in open {
        let mut views = views.into_iter().peekable();
        let mut missing = |n: usize| matched.missing += usize::from(n >= measured.first);
        for push in came.remove(&shopper).into_iter().flatten() {
            let fits = |n: &usize| started + traffic.due(*n) <= push.at && is_owed(&traffic.event(*n), &push.ids);
            let Some(found) = views.clone().find(|n| fits(n)) else { continue };
            while let Some(n) = views.next_if(|n| *n < found) {
                missing(n);
            }
            views.next();
            if found >= measured.first {
                matched.took.push(push.at.duration_since(started + traffic.due(found)));
            }
        }
        views.for_each(missing);
    }
    matched
}

fn is_owed(event: &Event, ids: &[String]) -> bool {
    matches!(event, Event::View { product, others, .. } if others.iter().all(|other| ids.contains(other)) && !ids.contains(product))
}

/// Gives each order the first decision about its product.
pub fn decisions(traffic: &Traffic, started: Instant, measured: Measured, heard: &[(Instant, String)]) -> Matched {
    let mut first: HashMap<&str, Instant> = HashMap::new();
    for (at, product) in heard {
        first.entry(product.as_str()).and_modify(|before| *before = (*before).min(*at)).or_insert(*at);
    }
    let mut matched = Matched::default();
    for n in measured.first..measured.end {
        let Event::Order { product, .. } = traffic.event(n) else { continue };
        match first.get(product.as_str()) {
            Some(at) => matched.took.push(at.saturating_duration_since(started + traffic.due(n))),
            None => matched.missing += 1,
        }
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The views of shopper 0, with what they are owed.
    fn views(traffic: &Traffic, end: usize) -> Vec<(usize, Vec<String>)> {
        let all = (0..end).filter_map(|n| match traffic.event(n) {
            Event::View { shopper: 0, others, .. } => Some((n, others)),
            _ => None,
        });
        all.collect()
    }

    fn pushed(traffic: &Traffic, started: Instant, late: Duration, end: usize) -> Vec<Push> {
        let push = |(n, ids)| Push { at: started + traffic.due(n) + late, shopper: 0, ids };
        views(traffic, end).into_iter().map(push).collect()
    }

    #[test]
    fn a_push_that_did_not_come_is_counted_and_the_next_one_is_not_taken_for_it() {
        let (traffic, started, measured) = (Traffic::new("t", 1), Instant::now(), Measured { first: 4, end: 16 });
        let all = pushed(&traffic, started, 7 * MS, measured.end);
        let count = views(&traffic, measured.end).iter().filter(|(n, _)| *n >= measured.first).count();
        let matched = pushes(&traffic, started, measured, &all, |shopper| shopper == 0);
        assert_eq!((matched.took, matched.missing), (vec![7 * MS; count], 0));
        let mut less = all.clone();
        less.remove(all.len() - 2);
        let matched = pushes(&traffic, started, measured, &less, |shopper| shopper == 0);
        assert_eq!((matched.took, matched.missing), (vec![7 * MS; count - 1], 1));
        // One from before what is measured counts for nothing, there or not.
        let matched = pushes(&traffic, started, measured, &all[1..], |shopper| shopper == 0);
        assert_eq!((matched.took, matched.missing), (vec![7 * MS; count], 0));
    }

    #[test]
    fn a_push_that_comes_after_further_views_still_counts_from_its_own() {
        let (traffic, started, measured) = (Traffic::new("t", 1), Instant::now(), Measured { first: 0, end: 8 });
        let late = pushed(&traffic, started, 5_000 * MS, measured.end);
        let matched = pushes(&traffic, started, measured, &late, |shopper| shopper == 0);
        assert_eq!((matched.took, matched.missing), (vec![5_000 * MS; late.len()], 0));
        let matched = pushes(&traffic, started, measured, &late[1..], |shopper| shopper == 0);
        assert_eq!((matched.took, matched.missing), (vec![5_000 * MS; late.len() - 1], 1));
    }

    #[test]
    fn an_order_without_a_decision_is_counted() {
        let (traffic, started) = (Traffic::new("t", 100), Instant::now());
        let order = |n: usize| match traffic.event(n) {
            Event::Order { product, .. } => (started + traffic.due(n) + 5 * MS, product),
            Event::View { .. } => unreachable!(),
        };
        let heard = [order(9), order(29), (started + 9_999 * MS, order(9).1)];
        let matched = decisions(&traffic, started, Measured { first: 0, end: 30 }, &heard);
        assert_eq!((matched.took, matched.missing), (vec![5 * MS; 2], 1));
    }
}
