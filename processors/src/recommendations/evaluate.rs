//! How good the recommendations are: learn one stretch of events, then rank before each view of another.
//!
//! What is measured is the rules that run: [`Recommender`] is both stages without a log.

use super::{RecommendationsSettings, Recommender, recommender::Repeats};
use rustc_hash::FxHashSet;
use serde::Serialize;
use std::collections::BTreeMap;
use tillflow_schemas::{ProductId, UserEvent, UserEventKind};

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Length of the lists.
    pub top: usize,
    /// Lists may hold what was already seen in the session.
    pub repeats: bool,
    /// The test stretch teaches nothing; otherwise it is learned as it passes, as live.
    pub frozen: bool,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { top: 20, repeats: false, frozen: false }
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// Length of the lists.
    pub top: usize,
    /// Views predicted.
    pub predictions: u64,
    /// Of these, in their list.
    pub hits: u64,
    /// Sum of 1/rank over the hits.
    pub reciprocal_ranks: f64,
    /// Different products listed.
    pub listed: usize,
    /// Products of the training stretch.
    pub products: usize,
    /// Views predicted of another product than the one just seen.
    pub nonrepeat_predictions: u64,
    /// Of these, in their list.
    pub nonrepeat_hits: u64,
}

impl Quality {
    /// Hits as a fraction of the predictions.
    pub fn hit_rate(&self) -> f64 {
        share(self.hits as f64, self.predictions as f64)
    }
    /// Mean reciprocal rank.
    pub fn mrr(&self) -> f64 {
        share(self.reciprocal_ranks, self.predictions as f64)
    }
    /// Different products listed as a fraction of those of the training stretch.
    pub fn coverage(&self) -> f64 {
        share(self.listed as f64, self.products as f64)
    }
}

fn share(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}

/// As `tillflow evaluate` prints it: names carry the length of the lists.
impl Serialize for Quality {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Figure {
            Count(u64),
            Share(f64),
            Part { predictions: u64, hits: u64 },
        }
        let digits = |x: f64| Figure::Share((x * 1e6).round() / 1e6);
        s.collect_map([
            ("predictions".to_owned(), Figure::Count(self.predictions)),
            (format!("hr_at_{}", self.top), digits(self.hit_rate())),
            (format!("mrr_at_{}", self.top), digits(self.mrr())),
            ("coverage".to_owned(), digits(self.coverage())),
            ("nonrepeat".to_owned(), Figure::Part { predictions: self.nonrepeat_predictions, hits: self.nonrepeat_hits }),
            ("hits".to_owned(), Figure::Count(self.hits)),
        ])
    }
}

/// Learns `train`, then ranks for each product view of `test` but a user's first, before seeing it. Both are taken in
/// time order; what has one time keeps its order.
pub fn evaluate(
    train: impl IntoIterator<Item = UserEvent>,
    test: impl IntoIterator<Item = UserEvent>,
    settings: &RecommendationsSettings,
    protocol: Protocol,
) -> Quality {
    let mut recommender = Recommender::new(settings.clone());
    in_time_order(train).iter().for_each(|event| recommender.learn(event));
    let mut quality = Quality { top: protocol.top, products: recommender.products(), ..Quality::default() };
    let mut listed: FxHashSet<ProductId> = FxHashSet::default();
    let mut just_seen = BTreeMap::new();
    let repeats = if protocol.repeats { Repeats::Listed } else { Repeats::Dropped };
    for event in in_time_order(test) {
        if let (UserEventKind::ProductViewed { product_id, .. }, Some(user)) = (&event.kind, event.who())
            && let Some(before) = just_seen.insert(user.clone(), product_id.clone())
        {
            let list = recommender.rank(user, protocol.top, repeats);
            quality.count(&list, product_id, before == *product_id);
            listed.extend(list);
        }
        if protocol.frozen { recommender.follow(&event) } else { recommender.learn(&event) }
    }
    quality.listed = listed.len();
    quality
}

impl Quality {
    fn count(&mut self, list: &[ProductId], target: &ProductId, repeat: bool) {
        let rank = list.iter().position(|p| p == target);
        self.predictions += 1;
        self.hits += u64::from(rank.is_some());
        self.reciprocal_ranks += rank.map_or(0.0, |rank| 1.0 / (rank + 1) as f64);
        if !repeat {
            self.nonrepeat_predictions += 1;
            self.nonrepeat_hits += u64::from(rank.is_some());
        }
    }
}

fn in_time_order(events: impl IntoIterator<Item = UserEvent>) -> Vec<UserEvent> {
    let mut events: Vec<UserEvent> = events.into_iter().collect();
    events.sort_by_key(|e| e.timestamp);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::{collections::BTreeSet, fs, path::PathBuf};
    use tillflow_schemas::{Event, Timestamp};

    fn view(user: &str, product: &str, ms: i64) -> UserEvent {
        let at = Timestamp::from_millis(1_400_000_000_000 + ms).to_string();
        let value = json!({"event_type": "product_viewed", "user_id": user, "product_id": product, "timestamp": at});
        match Event::from_value("user_event", None, value).unwrap() {
            Event::User(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_figures_of_a_shop_small_enough_to_count_by_hand() {
        let train = vec![view("a", "tea", 0), view("a", "cup", 1), view("b", "tea", 2), view("b", "pot", 3), view("b", "rum", 4)];
        let test = vec![view("x", "tea", 10), view("x", "tea", 11), view("x", "cup", 12)];
        let protocol = Protocol { top: 1, ..Protocol::default() };
        // After tea comes cup (tie with pot, by id). The reload is no hit, the cup is.
        let quality = evaluate(train.clone(), test.clone(), &RecommendationsSettings::default(), protocol);
        assert_eq!((quality.predictions, quality.hits, quality.nonrepeat_predictions, quality.nonrepeat_hits), (2, 1, 1, 1));
        assert_eq!(
            serde_json::to_value(&quality).unwrap(),
            json!({"predictions": 2, "hr_at_1": 0.5, "mrr_at_1": 0.5, "coverage": 0.25, "nonrepeat": {"predictions": 1, "hits": 1}, "hits": 1})
        );
        let repeats = Protocol { repeats: true, top: 2, ..protocol };
        let quality = evaluate(train, test, &RecommendationsSettings::default(), repeats);
        assert_eq!((quality.hits, quality.mrr()), (2, 0.75), "with repeats the page itself comes first");
    }

    #[test]
    fn live_learns_the_test_as_it_passes_and_frozen_does_not() {
        let test: Vec<UserEvent> =
            (0..10).flat_map(|u| [view(&format!("u{u}"), "a", u * 10), view(&format!("u{u}"), "b", u * 10 + 1)]).collect();
        let live = evaluate([], test.clone(), &RecommendationsSettings::default(), Protocol::default());
        assert_eq!((live.predictions, live.hits), (10, 9));
        let frozen = evaluate([], test, &RecommendationsSettings::default(), Protocol { frozen: true, ..Protocol::default() });
        assert_eq!((frozen.predictions, frozen.hits), (10, 0));
    }

    /// A file of a real shop's sessions (RecSys Challenge 2015), where it is at hand: in `shared/data` beside the
    /// repository, or in the folder that TILLFLOW_TEST_DATA names.
    fn file(name: &str) -> Option<String> {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        let folder = std::env::var_os("TILLFLOW_TEST_DATA").map_or(beside, PathBuf::from).join("yoochoose_100k");
        fs::read_to_string(folder.join(name)).ok()
    }

    fn yoochoose(name: &str) -> Option<Vec<UserEvent>> {
        let text = file(name)?;
        let views = text.lines().skip(1).map(|line| {
            let [session, item, time] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let ms = (time.parse::<f64>().unwrap() * 1000.0).round() as i64 - 1_400_000_000_000;
            view(session, item, ms)
        });
        Some(views.collect())
    }

    /// The sessions for which the peers' lists are public: the first 99 of the test set.
    fn first_99(test: &[UserEvent]) -> Option<Vec<UserEvent>> {
        let lists = file("recoms_rsc15_100k_ar.csv")?;
        let sessions: BTreeSet<&str> = lists.lines().skip(1).filter_map(|line| line.split(';').next()).collect();
        Some(test.iter().filter(|e| e.who().is_some_and(|session| sessions.contains(session.as_str()))).cloned().collect())
    }

    #[test]
    fn on_real_sessions_it_is_better_than_its_peers() {
        let train = yoochoose("yoochoose-clicks-100k_train_full.txt");
        let test = yoochoose("yoochoose-clicks-100k_test.txt").and_then(|test| first_99(&test));
        let (Some(train), Some(test)) = (train, test) else {
            eprintln!("skipped: no yoochoose_100k in TILLFLOW_TEST_DATA");
            return;
        };
        let settings = RecommendationsSettings::default();
        let peers = Protocol { repeats: true, frozen: true, ..Protocol::default() };
        let quality = evaluate(train, test, &settings, peers);
        eprintln!("387 predictions, frozen, repeats: {}", serde_json::to_string(&quality).unwrap());
        assert_eq!((quality.predictions, quality.nonrepeat_predictions), (387, 289));
        // Of the same lists: AR .592 and 139, SR .561, VSKNN .610 and 140, GRU4Rec .571 and 126.
        assert!(quality.hit_rate() >= 0.59, "{quality:?}");
        assert!(quality.nonrepeat_hits >= 140, "{quality:?}");
    }

    /// Prints the figures for tuning, on the validation split and on the whole test set.
    #[test]
    #[ignore = "prints figures for tuning; takes long"]
    fn figures() {
        let valid = (yoochoose("yoochoose-clicks-100k_train_tr.txt").unwrap(), yoochoose("yoochoose-clicks-100k_train_valid.txt").unwrap());
        let test = (yoochoose("yoochoose-clicks-100k_train_full.txt").unwrap(), yoochoose("yoochoose-clicks-100k_test.txt").unwrap());
        let first = (test.0.clone(), first_99(&test.1).unwrap());
        let changes: serde_json::Value = std::env::var("CHANGES").map_or(json!([{}]), |c| serde_json::from_str(&c).unwrap());
        for change in changes.as_array().unwrap() {
            let settings: RecommendationsSettings = serde_json::from_value(change.clone()).unwrap();
            println!("{change}");
            for (name, (train, test)) in [("valid", &valid), ("99", &first), ("test", &test)] {
                for (repeats, frozen) in [(true, true), (false, false)] {
                    let quality = evaluate(train.clone(), test.clone(), &settings, Protocol { top: 20, repeats, frozen });
                    println!("  {name} repeats {repeats} frozen {frozen} {}", serde_json::to_string(&quality).unwrap());
                }
            }
        }
    }
}
