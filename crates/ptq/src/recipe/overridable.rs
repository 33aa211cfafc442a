//! Tables of a cell whose fields a grid may set one by one.

/// Declares a resolved table and its overrides from one list of fields, so that neither can lack one.
///
/// The override's fields are optional; `apply` writes those that are set, `merge` takes over those that another sets,
/// `keys` names them all, `departures` those in which two resolved tables differ. `=>` behind a field's type gives its
/// [`Bounds`](crate::recipe::Bounds), for `check_bounds`.
macro_rules! overridable {
    ($(#[$about:meta])* $name:ident, $over:ident { $($(#[$doc:meta])* $field:ident: $type:ty $(=> $bounds:expr)?,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        #[doc = concat!("Fields of a [`", stringify!($name), "`] that a grid sets; the others keep the published values.")]
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $over {
            $(#[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl $over {
            /// Writes the fields that are set into `resolved`.
            pub fn apply(&self, resolved: &mut $name) {
                $(if let Some(value) = &self.$field { resolved.$field = value.clone(); })*
            }

            /// `over`'s fields where it has them, else `self`'s.
            pub fn merge(&mut self, over: &$over) {
                $(if over.$field.is_some() { self.$field = over.$field.clone(); })*
            }
        }

        impl $name {
            /// Names of all fields, as written in a grid.
            pub fn keys() -> Vec<String> {
                vec![$(stringify!($field).replace('_', "-")),*]
            }

            /// Errors: the first field that is out of its bounds, as written in a grid, and what is wrong with it.
            pub fn check_bounds(&self) -> Result<(), (String, String)> {
                use $crate::recipe::Bounds;
                $($(
                    let bounds: Bounds = $bounds;
                    bounds.check(self.$field).map_err(|problem| (stringify!($field).replace('_', "-"), problem))?;
                )?)*
                Ok(())
            }

            /// Names of the fields whose values differ, as written in a grid.
            pub fn departures(&self, published: &$name) -> Vec<String> {
                let mut names = Vec::new();
                $(if self.$field != published.$field { names.push(stringify!($field).replace('_', "-")); })*
                names
            }
        }
    };
}

pub(crate) use overridable;
