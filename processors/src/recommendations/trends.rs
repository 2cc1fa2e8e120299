//! What is popular in one partition's sample of the shop: the fallback where nothing else is known.
//!
//! Each product's sightings are integers by day of event time; decay is applied on reading. Lists of the most popular,
//! one for the shop and one a category, are bounded; a product is offered to them when its count has grown by an
//! eighth, so that a popular product does not rewrite them on every view.

use super::RecommendationsSettings;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tillflow_schemas::{ProductId, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Days counted.
const DAYS: u32 = 14;
/// Products of one list.
const LISTED: usize = 50;

/// A day of event time, in days since 1970.
pub fn day(at: Timestamp) -> i64 {
    at.millis().div_euclid(DAY.as_millis() as i64)
}

/// How popularity fades by the day, in 1/65536.
#[derive(Clone, Debug)]
pub struct Fading(Vec<u64>);

impl Fading {
    /// The fading that the settings ask for.
    pub fn new(settings: &RecommendationsSettings) -> Self {
        let left = |age: u32| (65_536.0 * (-f64::from(age) / f64::from(settings.trend_half_life_days)).exp2()).round() as u64;
        Self((0..DAYS).map(left).collect())
    }

    fn at(&self, age: i64) -> u64 {
        // What a late clock makes of tomorrow counts as today.
        usize::try_from(age.max(0)).ok().and_then(|age| self.0.get(age)).copied().unwrap_or(0)
    }
}

/// How often a product was seen of late.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Popularity {
    /// By day, ascending.
    days: Vec<(i64, u64)>,
}

impl Popularity {
    /// Counts `weight` on `day`.
    pub fn add(&mut self, day: i64, weight: u64) {
        let at = self.days.partition_point(|(d, _)| *d < day);
        match self.days.get_mut(at).filter(|(d, _)| *d == day) {
            Some((_, sum)) => *sum = sum.saturating_add(weight),
            None => self.days.insert(at, (day, weight)),
        }
        let newest = self.days.last().map_or(day, |(d, _)| *d);
        self.days.retain(|(d, _)| newest - d < i64::from(DAYS));
    }

    /// What it amounts to on `day`.
    pub fn on(&self, day: i64, fading: &Fading) -> u64 {
        self.days.iter().fold(0, |all, (d, sum)| all.saturating_add(sum.saturating_mul(fading.at(day - d))))
    }
}

/// What one partition knows of a product.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProductSample {
    /// Sightings, ever: how usual it is.
    pub sightings: u64,
    /// Of late.
    pub popularity: Popularity,
    /// Its popularity when last offered to the lists.
    offered: u64,
}

impl ProductSample {
    /// Counts `weight` at `at`; whether it is to be offered to the lists.
    pub fn count(&mut self, at: Timestamp, weight: u64, fading: &Fading) -> bool {
        let day = day(at);
        self.popularity.add(day, weight);
        let now = self.popularity.on(day, fading);
        let news = now >= self.offered.saturating_add(self.offered / 8) || now < self.offered / 2;
        if news {
            self.offered = now;
        }
        news
    }
}

/// The most popular products of the shop or of a category.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrendList {
    entries: Vec<(ProductId, Popularity)>,
}

impl TrendList {
    /// Takes in a product's popularity; the least popular on `day` goes where there are too many, and of equal ones the
    /// last by id.
    pub fn offer(&mut self, product: &ProductId, popularity: &Popularity, day: i64, fading: &Fading) {
        match self.entries.iter_mut().find(|(p, _)| p == product) {
            Some((_, known)) => known.clone_from(popularity),
            None => self.entries.push((product.clone(), popularity.clone())),
        }
        if self.entries.len() > LISTED {
            let on_day =
                self.entries.iter().enumerate().map(|(at, (p, popularity))| (popularity.on(day, fading), std::cmp::Reverse(p), at));
            if let Some((.., least)) = on_day.min() {
                self.entries.remove(least);
            }
        }
    }

    /// Its products on `day`, most popular first, each with its share of the list; ties by id.
    pub fn top(&self, day: i64, fading: &Fading) -> Vec<(ProductId, f64)> {
        let mut top: Vec<(u64, &ProductId)> = self.entries.iter().map(|(p, popularity)| (popularity.on(day, fading), p)).collect();
        let all: u64 = top.iter().fold(0, |all, (n, _)| all.saturating_add(*n));
        top.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        top.into_iter().map(|(n, p)| (p.clone(), if all == 0 { 0.0 } else { n as f64 / all as f64 })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fading() -> Fading {
        Fading::new(&RecommendationsSettings::default())
    }

    fn seen(counts: &[(i64, u64)]) -> Popularity {
        let mut popularity = Popularity::default();
        counts.iter().for_each(|(day, n)| popularity.add(*day, *n));
        popularity
    }

    #[test]
    fn yesterday_s_favourite_gives_way_to_today_s() {
        let mut list = TrendList::default();
        list.offer(&"old".into(), &seen(&[(100, 8)]), 100, &fading());
        list.offer(&"new".into(), &seen(&[(106, 3)]), 106, &fading());
        let names = |day| list.top(day, &fading()).into_iter().map(|(p, _)| p.into_string()).collect::<Vec<_>>();
        assert_eq!(names(103), ["old", "new"]);
        assert_eq!(names(106), ["new", "old"], "two half-lives leave 2 of 8");
    }

    #[test]
    fn a_list_is_bounded_and_the_least_popular_goes() {
        let mut list = TrendList::default();
        for i in 0..60_u64 {
            list.offer(&format!("p{i:02}").into(), &seen(&[(100, 100 - i)]), 100, &fading());
        }
        let top = list.top(100, &fading());
        assert_eq!(top.len(), LISTED);
        assert_eq!(top[0].0.as_str(), "p00");
    }

    #[test]
    fn a_product_is_offered_at_first_and_when_it_has_grown() {
        let mut sample = ProductSample::default();
        let offers = (0..1_000).filter(|_| sample.count(Timestamp::from_millis(0), 1, &fading())).count();
        assert!((8..60).contains(&offers), "{offers}");
        assert!(sample.popularity.on(0, &fading()) > 0);
    }
}
