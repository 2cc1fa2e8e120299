//! The keys of a configuration: which ones there are follows from the defaults, and an unknown one is told the nearest.
//!
//! ```
//! use serde_json::json;
//! use tillflow_engine_api::keys;
//!
//! let known = keys::flatten(&json!({"pricing": {"low": 20, "high": 100}, "shop": {"rates": {}}}));
//! let given = json!({"pricing": {"low": 5}, "shop": {"rates": {"USD": "0.9"}}});
//! assert_eq!(keys::unknown(&keys::flatten(&given), &known), None);
//! let problem = keys::unknown(&keys::flatten(&json!({"pricing": {"lwo": 5}})), &known);
//! assert_eq!(problem.as_deref(), Some("there is no key 'pricing.lwo'; the nearest is 'pricing.low'"));
//! ```

use serde_json::Value;
use std::collections::BTreeMap;

/// Values by the path of their key, such as `topics.partitions`.
pub type Keys = BTreeMap<String, Value>;

/// The values of a configuration by the path of their key; an empty section is one value.
pub fn flatten(value: &Value) -> Keys {
    flatten_below("", value)
}

/// The same of a part that stands at `path`.
pub fn flatten_below(path: &str, value: &Value) -> Keys {
    let mut keys = Keys::new();
    collect(value, path, &mut keys);
    keys
}

fn collect(value: &Value, path: &str, keys: &mut Keys) {
    let join = |key: &String| if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
    match value.as_object().filter(|o| !o.is_empty()) {
        Some(object) => object.iter().for_each(|(key, value)| collect(value, &join(key), keys)),
        None => drop(keys.insert(path.to_owned(), value.clone())),
    }
}

/// What is wrong with the first key given that is none of those `known` with their defaults. Whatever stands below a
/// default that is empty, such as a map with names of the shop's own, is left to who reads it.
pub fn unknown(given: &Keys, known: &Keys) -> Option<String> {
    let is_open = |path: &str| known.get(path).is_some_and(|v| v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty));
    let is_known = |key: &str| {
        known.contains_key(key) || is_group(key, known) || key.match_indices('.').filter_map(|(at, _)| key.get(..at)).any(is_open)
    };
    given.keys().find(|key| !key.is_empty() && !is_known(key)).map(|key| no_such(key, known))
}

/// Whether keys stand below this one.
pub fn is_group(path: &str, known: &Keys) -> bool {
    known.keys().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Says that there is no such key, and which one may be meant.
pub fn no_such(key: &str, known: &Keys) -> String {
    let hint = nearest(key, known.keys().map(String::as_str)).map_or(String::new(), |near| format!("; the nearest is '{near}'"));
    format!("there is no key '{key}'{hint}")
}

/// The name most like the one given, if one is; dots and underscores are the same.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace('.', "_");
    let name = plain(name);
    let best = names.into_iter().map(|other| (strsim::damerau_levenshtein(&plain(other), &name), other)).min();
    best.filter(|(distance, _)| *distance <= 1 + name.len() / 3).map(|(_, other)| other)
}
