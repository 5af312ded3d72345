//! The JSON Schema of recipes, for editors; and the serde forms that derive cannot make.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use super::{ActivationFields, ActivationSpec, Recipe};

/// The schema as JSON. Draft 7, because editors know no newer one.
pub fn schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Recipe>();
    let text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text + "\n"
}

/// How a recipe spells [`ActivationSpec::Float`].
const NONE: &str = "none";

impl JsonSchema for ActivationSpec {
    fn schema_name() -> Cow<'static, str> {
        "ActivationSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<ActivationFields>();
        json_schema!({
            "description": "`none`, or how the activation is quantized.",
            "anyOf": [{ "const": NONE }, fields]
        })
    }
}

impl Serialize for ActivationSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ActivationSpec::Float => serializer.serialize_str(NONE),
            ActivationSpec::Quantized(fields) => fields.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ActivationSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ActivationSpec, D::Error> {
        deserializer.deserialize_any(ActivationVisitor)
    }
}

struct ActivationVisitor;

/// What the field may hold, as an error says it.
pub(super) const ACTIVATION: &str = "`none` or a mapping";

impl<'de> Visitor<'de> for ActivationVisitor {
    type Value = ActivationSpec;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(ACTIVATION)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ActivationSpec, E> {
        match text {
            NONE => Ok(ActivationSpec::Float),
            _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ActivationSpec, A::Error> {
        ActivationFields::deserialize(MapAccessDeserializer::new(map))
            .map(ActivationSpec::Quantized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_and_no_other_is_allowed() {
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        assert_eq!(schema["additionalProperties"], false);
        let entry = &schema["definitions"]["Entry"];
        assert_eq!(entry["additionalProperties"], false);
        for properties in [&schema["properties"], &entry["properties"]] {
            for (key, property) in properties.as_object().unwrap() {
                assert!(property["description"].is_string(), "`{key}` has no description");
            }
        }
    }
}
