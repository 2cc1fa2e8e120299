//! Templates: those that come with the program for the built-in campaigns, and the shop's own in their place or
//! beside them. HTML is escaped, text is not.

use super::EmailError;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::Value;
use std::collections::BTreeSet;
use tillflow_schemas::{Change, Template};

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../templates/", $name, ".html")), include_str!(concat!("../../templates/", $name, ".txt")))),+]
    };
}
/// Name, HTML, and text with its subject in the first line.
const BUILT_IN: &[(&str, &str, &str)] = files![
    "abandoned_cart",
    "abandoned_cart_reminder",
    "back_in_stock",
    "birthday",
    "browse",
    "price_drop",
    "review_request",
    "tier_upgraded",
    "win_back",
    "win_back_last",
];
/// What templates extend and import.
const PARTS: &[(&str, &str)] = &[
    ("layout.html", include_str!("../../templates/layout.html")),
    ("layout.txt", include_str!("../../templates/layout.txt")),
    ("products.html", include_str!("../../templates/products.html")),
    ("products.txt", include_str!("../../templates/products.txt")),
];
/// Steps a template may take, so that none runs for ever.
const FUEL: u64 = 100_000;

/// All templates, by name.
pub struct Templates {
    environment: Environment<'static>,
    names: BTreeSet<String>,
}

/// What a template made.
pub(super) struct Rendered {
    pub subject: String,
    pub html: String,
    pub text: String,
}

impl Templates {
    /// The built-in ones.
    ///
    /// # Errors
    /// When one of them is wrong; a test shows that none is.
    pub fn built_in() -> Result<Self, EmailError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_fuel(Some(FUEL));
        environment.set_trim_blocks(false);
        let mut templates = Self { environment, names: BTreeSet::new() };
        for (name, source) in PARTS {
            templates.add((*name).into(), (*source).into())?;
        }
        for (name, html, text) in BUILT_IN {
            templates.put_built_in(name, html, text)?;
        }
        Ok(templates)
    }

    /// Takes the shop's own: `subject`, `html` and `text` of a template of any name. Deleted, the built-in one of its
    /// name counts again.
    ///
    /// # Errors
    /// Says what is wrong with it; the one before stays.
    pub fn apply(&mut self, change: &Change<Template>) -> Result<(), EmailError> {
        let name = change.id.as_str();
        let wrong = |reason: &str| Err(EmailError::Template { name: name.to_owned(), reason: reason.to_owned() });
        let Some(template) = &change.value else {
            for part in ["subject", "html", "txt"] {
                self.environment.remove_template(&format!("{name}.{part}"));
            }
            self.names.remove(name);
            return match BUILT_IN.iter().find(|(built_in, ..)| *built_in == name) {
                Some((name, html, text)) => self.put_built_in(name, html, text),
                None => Ok(()),
            };
        };
        if PARTS.iter().any(|(part, _)| part.split('.').next() == Some(name)) {
            return wrong("layout and products are parts of the built-in templates; take another name");
        }
        let field = |field: &str| template.fields.get(field).and_then(Value::as_str).map(str::to_owned);
        let (Some(subject), Some(html), Some(text)) = (field("subject"), field("html"), field("text")) else {
            return wrong("needs subject, html and text");
        };
        // All are tried before any counts.
        let mut trial = self.environment.clone();
        for (part, source) in [("subject", &subject), ("html", &html), ("txt", &text)] {
            trial.add_template_owned(format!("{name}.{part}"), source.clone()).map_err(|e| failed(name, &e))?;
        }
        self.environment = trial;
        self.names.insert(name.to_owned());
        Ok(())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Fills a template.
    pub(super) fn render(&self, name: &str, context: &Value) -> Result<Rendered, EmailError> {
        if !self.names.contains(name) {
            let known: Vec<_> = self.names().collect();
            let reason = format!("there is none of this name; there are {}", known.join(", "));
            return Err(EmailError::Template { name: name.to_owned(), reason });
        }
        let fill = |part: &str, context: &Value| {
            let template = self.environment.get_template(&format!("{name}.{part}")).map_err(|e| failed(name, &e))?;
            template.render(context).map_err(|e| failed(name, &e))
        };
        let subject: String = fill("subject", context)?.split_whitespace().collect::<Vec<_>>().join(" ");
        if subject.is_empty() {
            return Err(EmailError::Template { name: name.to_owned(), reason: "makes an empty subject".into() });
        }
        let mut context = context.clone();
        if let Some(context) = context.as_object_mut() {
            context.insert("subject".into(), subject.clone().into());
        }
        Ok(Rendered { subject, html: fill("html", &context)?, text: squeezed(&fill("txt", &context)?) })
    }

    fn put_built_in(&mut self, name: &str, html: &str, text: &str) -> Result<(), EmailError> {
        let (subject, text) = text.strip_prefix("Subject: ").and_then(|t| t.split_once('\n')).unwrap_or(("", text));
        self.add(format!("{name}.subject"), subject.to_owned())?;
        self.add(format!("{name}.html"), html.to_owned())?;
        self.add(format!("{name}.txt"), text.to_owned())?;
        self.names.insert(name.to_owned());
        Ok(())
    }

    fn add(&mut self, name: String, source: String) -> Result<(), EmailError> {
        self.environment.add_template_owned(name.clone(), source).map_err(|e| failed(&name, &e))
    }
}

fn failed(name: &str, e: &minijinja::Error) -> EmailError {
    let reason = match (e.kind(), e.line()) {
        (ErrorKind::OutOfFuel, _) => format!("takes more than {FUEL} steps"),
        (_, Some(line)) => format!("line {line}: {e}"),
        (_, None) => e.to_string(),
    };
    EmailError::Template { name: name.to_owned(), reason }
}

/// At most one empty line at a place, none at the start and one line end at the end.
fn squeezed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.trim().lines() {
        if !(line.trim().is_empty() && out.ends_with("\n\n")) {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own(name: &str, fields: Value) -> Change<Template> {
        let mut template: Template = serde_json::from_value(fields).unwrap();
        template.template_id = name.into();
        Change { id: name.into(), value: Some(template) }
    }

    #[test]
    fn a_shop_s_own_template_takes_the_place_of_the_built_in_one_until_it_is_deleted() {
        let mut templates = Templates::built_in().unwrap();
        templates
            .apply(&own("birthday", json!({"subject": "Hi {{ first_name }}", "html": "<b>{{ first_name }}</b>", "text": "x"})))
            .unwrap();
        let rendered = templates.render("birthday", &json!({"first_name": "A & B\r\nBcc: all"})).unwrap();
        assert_eq!(rendered.subject, "Hi A & B Bcc: all");
        assert_eq!(rendered.html, "<b>A &amp; B\r\nBcc: all</b>");
        templates.apply(&Change { id: "birthday".into(), value: None }).unwrap();
        assert_eq!(templates.render("birthday", &json!({})).unwrap().subject, "Happy birthday");
    }

    #[test]
    fn a_wrong_template_is_refused_with_its_line_and_the_one_before_stays() {
        let mut templates = Templates::built_in().unwrap();
        for (fields, error) in [
            (json!({"subject": "a", "html": "b"}), "template 'birthday': needs subject, html and text"),
            (json!({"subject": "a", "html": "<p>\n{% if %}", "text": "c"}), "line 2"),
        ] {
            let found = templates.apply(&own("birthday", fields)).unwrap_err().to_string();
            assert!(found.contains(error), "{found}, not {error}");
        }
        assert!(templates.apply(&own("layout", json!({"subject": "a", "html": "b", "text": "c"}))).is_err());
        assert_eq!(templates.render("birthday", &json!({})).unwrap().subject, "Happy birthday");
    }

    #[test]
    fn a_template_that_runs_for_ever_or_says_nothing_is_an_error() {
        let mut templates = Templates::built_in().unwrap();
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        templates.apply(&own("endless", json!({"subject": "a", "html": endless, "text": "c"}))).unwrap();
        assert!(templates.render("endless", &json!({})).err().unwrap().to_string().contains("more than"));
        templates.apply(&own("silent", json!({"subject": "{{ nothing }}", "html": "b", "text": "c"}))).unwrap();
        assert!(templates.render("silent", &json!({})).err().unwrap().to_string().contains("empty subject"));
        assert!(templates.render("none", &json!({})).err().unwrap().to_string().contains("there are abandoned_cart"));
    }
}
