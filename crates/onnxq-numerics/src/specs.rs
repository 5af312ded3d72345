//! How a recipe spells an algorithm: a word, or a word with its settings.

use std::{
    fmt::{self, Display},
    marker::PhantomData,
    ops::RangeInclusive,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize,
    de::{
        Error, MapAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};

/// Settings that a recipe may give. Loading checks them, so that algorithms need not.
pub trait Settings {
    /// What types cannot say.
    fn check(&self) -> Result<(), Wrong> {
        Ok(())
    }
}

/// What is wrong with a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Where it stands below what was checked: `goal.max_kl`; empty if all of it is meant.
    pub key: String,
    /// Named in the message if `what` does not.
    subject: Option<String>,
    what: String,
}

impl Wrong {
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Wrong {
        Wrong { key: key.into(), subject: None, what: what.into() }
    }

    /// As [`new`](Self::new), for what says nothing of the setting that it is about.
    pub fn about(key: &str, what: impl Into<String>) -> Wrong {
        Wrong { subject: Some(format!("`{key}`")), ..Wrong::new(key, what) }
    }

    /// The same, below `key`.
    pub fn inside(self, key: &str) -> Wrong {
        Wrong { key: format!("{key}.{}", self.key), ..self }
    }

    /// The same, as a setting of what `word` names.
    pub fn of(self, word: &str) -> Wrong {
        let subject = self.subject.as_ref().map(|it| format!("{it} of {word}"));
        Wrong { subject, ..self.inside(word) }
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(subject) = &self.subject {
            write!(f, "{subject} ")?;
        }
        f.write_str(&self.what)
    }
}

/// Refuses a value outside of what is allowed; NaN is outside of everything.
pub fn within<T: PartialOrd + Display>(
    key: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), Wrong> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = (allowed.start(), allowed.end());
    Err(Wrong::about(key, format!("is {value}, not from {least} to {most}")))
}

/// A list of algorithms that recipes can name.
pub trait Spec: Sized {
    /// What each of them is: `solver`.
    const KIND: &'static str;
    /// The words that stand alone, which is all of them.
    const NAMES: &'static [&'static str];
    /// The words that may have settings.
    const CONFIGURABLE: &'static [&'static str];

    /// Each with its default settings.
    fn all() -> Vec<Self>;
}

/// Makes the enum of algorithms that recipes can name from one list, which everything else reads:
/// names, YAML, its schema, the check of settings, the tests that loop over all.
///
/// ```text
/// specs! {
///     /// A solver and its settings, as a recipe names it.
///     pub enum SolverSpec("solver", "a solver", "SolverSettings") as solver: Solver {
///         rtn::Rtn,              // a unit struct
///     } with settings {
///         mse::Mse,              // a struct that implements `Settings` and `Default`
///     }
/// }
/// ```
///
/// An entry is a module and its type, whose name in snake case is the module's and the word in
/// YAML. `solver()` gives the entry as `&dyn Solver`. Both types are exported beside the enum.
#[macro_export]
macro_rules! specs {
    (
        $(#[$meta:meta])*
        pub enum $Spec:ident($kind:literal, $one:literal, $schema:literal)
            as $get:ident: $Trait:ident
        {
            $($(#[$alone_meta:meta])* $alone:ident::$Alone:ident,)*
        } with settings {
            $($name:ident::$With:ident,)*
        }
    ) => {
        $(pub use self::$alone::$Alone;)*
        $(pub use self::$name::$With;)*

        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Debug, ::serde::Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $Spec {
            $($(#[$alone_meta])* $Alone,)*
            $($With($With),)*
        }

        impl $Spec {
            pub fn $get(&self) -> &dyn $Trait {
                match self {
                    $($Spec::$Alone => &$Alone,)*
                    $($Spec::$With(it) => it,)*
                }
            }

            pub fn name(&self) -> &'static str {
                match self {
                    $($Spec::$Alone => stringify!($alone),)*
                    $($Spec::$With(_) => stringify!($name),)*
                }
            }
        }

        impl $crate::specs::Spec for $Spec {
            const KIND: &'static str = $kind;
            const NAMES: &'static [&'static str] =
                &[$(stringify!($alone),)* $(stringify!($name),)*];
            const CONFIGURABLE: &'static [&'static str] = &[$(stringify!($name),)*];

            fn all() -> Vec<$Spec> {
                vec![$($Spec::$Alone,)* $($Spec::$With($With::default()),)*]
            }
        }

        impl $crate::specs::Settings for $Spec {
            fn check(&self) -> Result<(), $crate::specs::Wrong> {
                match self {
                    $($Spec::$Alone => Ok(()),)*
                    $($Spec::$With(it) => it.check(),)*
                }
                .map_err(|it| it.of(self.name()))
            }
        }

        /// The word alone.
        #[derive(::serde::Deserialize)]
        #[serde(rename_all = "snake_case", expecting = $one)]
        enum Word {
            $($Alone,)*
            $($With,)*
        }

        /// The word with settings.
        #[derive(::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(rename_all = "snake_case", expecting = $one)]
        #[schemars(rename = $schema)]
        enum WithSettings {
            $($With($With),)*
        }

        impl From<Word> for $Spec {
            fn from(word: Word) -> $Spec {
                match word {
                    $(Word::$Alone => $Spec::$Alone,)*
                    $(Word::$With => $Spec::$With($With::default()),)*
                }
            }
        }

        impl From<WithSettings> for $Spec {
            fn from(settings: WithSettings) -> $Spec {
                match settings {
                    $(WithSettings::$With(it) => $Spec::$With(it),)*
                }
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $Spec {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$Spec, D::Error> {
                let what = concat!($one, ", alone or with its settings");
                let visitor = $crate::specs::SpecVisitor::<Word, WithSettings, $Spec>::new(what);
                deserializer.deserialize_any(visitor)
            }
        }

        impl ::schemars::JsonSchema for $Spec {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($Spec).into()
            }

            fn json_schema(generator: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                $crate::specs::spec_schema::<$Spec, WithSettings>($one, generator)
            }
        }
    };
}

/// The schema of a word, alone or with its settings. `one` is "a solver".
pub fn spec_schema<S: Spec, WithSettings: JsonSchema>(
    one: &str,
    generator: &mut SchemaGenerator,
) -> Schema {
    let settings = generator.subschema_for::<WithSettings>();
    json_schema!({
        "description": format!("{}, alone or with its settings.", one.replacen('a', "A", 1)),
        "anyOf": [{ "enum": S::NAMES }, settings]
    })
}

/// Reads a word, or a word with its settings.
pub struct SpecVisitor<Word, WithSettings, Spec> {
    what: &'static str,
    reads: PhantomData<(Word, WithSettings, Spec)>,
}

impl<Word, WithSettings, Spec> SpecVisitor<Word, WithSettings, Spec> {
    /// `what` is expected, an error says.
    pub fn new(what: &'static str) -> Self {
        SpecVisitor { what, reads: PhantomData }
    }
}

impl<'de, Word, WithSettings, Spec> Visitor<'de> for SpecVisitor<Word, WithSettings, Spec>
where
    Word: Deserialize<'de>,
    WithSettings: Deserialize<'de>,
    Spec: From<Word> + From<WithSettings>,
{
    type Value = Spec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Spec, E> {
        Word::deserialize(StrDeserializer::<E>::new(text)).map(Spec::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Spec, A::Error> {
        WithSettings::deserialize(MapAccessDeserializer::new(map)).map(Spec::from)
    }

    fn visit_unit<E: Error>(self) -> Result<Spec, E> {
        Err(E::invalid_type(Unexpected::Unit, &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observe::ObserverSpec, solve::SolverSpec};
    use serde::{Serialize, de::DeserializeOwned};

    fn words_lead_back<S: Spec + Settings + Serialize + DeserializeOwned + PartialEq>() {
        assert_eq!(S::all().len(), S::NAMES.len());
        for (spec, name) in S::all().iter().zip(S::NAMES) {
            let word: S = serde_json::from_value((*name).into()).unwrap();
            assert!(word == *spec, "{name}");
            let written = serde_json::to_value(spec).unwrap();
            let own = written.as_str() == Some(name) || written.get(name).is_some();
            assert!(own, "{name}: {written}");
            assert!(serde_json::from_value::<S>(written).unwrap() == *spec, "{name}");
            assert_eq!(spec.check(), Ok(()), "the default settings of {name}");
        }
    }

    #[test]
    fn every_word_names_itself_and_has_sound_defaults() {
        words_lead_back::<SolverSpec>();
        words_lead_back::<ObserverSpec>();
    }

    #[test]
    fn nothing_outside_and_no_nan_is_within() {
        assert_eq!(within("p", 1.0, 0.5..=1.0), Ok(()));
        assert!(within("p", f32::NAN, 0.0..=1.0).is_err());
        let wrong = within("p", 2, 0..=1).unwrap_err().of("hqq");
        assert_eq!(
            (&*wrong.key, &*wrong.to_string()),
            ("hqq.p", "`p` of hqq is 2, not from 0 to 1")
        );
    }
}
