//! Documents that scripts rely on, checked field by field.

use serde_json::Value;

/// Checks that a document has at least these fields, of these kinds: `text`, `number`, `bool`,
/// `list`, `null`, several joined by `|`, or an object of further fields.
///
/// # Panics
/// Naming the first field that is missing or of another kind.
#[track_caller]
pub fn has_shape(value: &Value, shape: &Value) {
    if let Err(error) = check("", value, shape) {
        panic!("{error} in {value}");
    }
}

fn check(path: &str, value: &Value, shape: &Value) -> Result<(), String> {
    match shape {
        Value::String(kinds) => {
            let kind = match value {
                Value::Null => "null",
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::String(_) => "text",
                Value::Array(_) => "list",
                Value::Object(_) => "object",
            };
            if kinds.split('|').any(|wanted| wanted == kind) {
                Ok(())
            } else {
                Err(format!("{path} is {kind}, not {kinds}"))
            }
        }
        Value::Object(fields) => fields.iter().try_for_each(|(name, shape)| {
            let path = format!("{path}.{name}");
            // A field that may be null must be there all the same: scripts read it by name.
            let found = value.get(name).ok_or_else(|| format!("{path} is missing"))?;
            check(&path, found, shape)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err(format!("{shape} describes no kind of value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_field_and_a_wrong_kind_are_named() {
        let value = json!({"a": {"b": 1}, "c": null});
        has_shape(&value, &json!({"a": {"b": "number"}, "c": "text|null"}));
        assert_eq!(
            check("", &value, &json!({"a": {"b": "text"}})),
            Err(".a.b is number, not text".to_owned())
        );
        assert_eq!(check("", &value, &json!({"d": "null"})), Err(".d is missing".to_owned()));
    }
}
