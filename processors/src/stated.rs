//! What a shop states on a reference topic, checked as it is taken in: what is wrong is said to who sent it, rather than
//! having no effect without a word.

use crate::{email, loyalty};
use tillflow_schemas::{Change, DecodeError, Event};

/// What is wrong with a campaign, segment, reward, challenge or badge, with the path of the field. `None` of other records.
pub fn problem(event: &Event) -> Option<DecodeError> {
    let said = |problem: Option<email::definitions::Problem>| problem.map(|p| DecodeError::at(p.path, p.reason));
    match event {
        Event::Campaign(Change { value: Some(campaign), .. }) => said(email::campaigns::problems(campaign)),
        Event::SegmentDefinition(Change { value: Some(definition), .. }) => said(email::segments::problems(definition)),
        other => loyalty::problem(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_wrong_with_a_definition_is_said_with_its_path() {
        let said = |schema: &str, value: Value| {
            let problem = problem(&Event::from_value(schema, None, value).unwrap());
            problem.map_or_else(String::new, |p| format!("{}: {}", p.field, p.reason))
        };
        let steps = json!([{"wait": "1h", "template": "t"}]);
        for (schema, good, bad, words) in [
            (
                "campaign",
                json!({"campaign_id": "c", "trigger": {"event": "signed_up"}, "steps": steps}),
                json!({"campaign_id": "c", "trigger": {"evnt": "signed_up"}, "steps": steps}),
                "c.trigger.evnt: is not one of",
            ),
            ("campaign", json!({"campaign_id": "browse", "holdout": 5}), json!({"campaign_id": "browse", "holdout": 500}), "holdout"),
            (
                "segment_definition",
                json!({"segment_id": "s", "field": "orders", "op": ">", "value": 1}),
                json!({"segment_id": "s", "all": [{"field": "ordrs", "op": ">", "value": 1}]}),
                "s.all[0].field",
            ),
            (
                "challenge",
                json!({"challenge_id": "c", "goal": "spend", "target": "5", "points": 1}),
                json!({"challenge_id": "c", "goal": "spend", "target": "0", "points": 1}),
                "target: 0 is not above 0",
            ),
            (
                "challenge",
                json!({"challenge_id": "three_purchases", "goal": "orders", "target": 3, "points": 50, "enabled": false}),
                json!({"challenge_id": "c", "goal": "spnd", "target": "5", "points": 1}),
                "unknown variant `spnd`",
            ),
            (
                "badge",
                json!({"badge_id": "b", "name": "B", "measure": "orders", "at_least": 3, "colour": "red"}),
                json!({"badge_id": "b", "name": "B", "measure": "orders"}),
                "missing field `at_least`",
            ),
            (
                "reward",
                json!({"reward_id": "r", "name": "R", "points": 3}),
                json!({"reward_id": "r", "name": "R", "points": 0}),
                "points: 0 is not above 0",
            ),
        ] {
            assert_eq!(said(schema, good), "", "{schema}");
            let said = said(schema, bad);
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
