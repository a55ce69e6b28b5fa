//! What the generated declarations are made of: opaque handles, and one table of functions.

use std::ffi::CStr;

use crate::bindings::{Api, migraphx_status};

/// Opaque types and the two pointers to each that the header defines.
macro_rules! handles {
    ($($name:ident, $mutable:ident, $constant:ident;)*) => {
        $(
            #[doc = concat!("What [`", stringify!($mutable), "`] points to; only the library knows what is in it.")]
            #[repr(C)]
            #[derive(Debug)]
            pub struct $name {
                opaque: [u8; 0],
                /// Neither `Send` nor `Sync` nor `Unpin` by itself.
                marker: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
            }

            #[doc = concat!("A handle of the C API; null is no object.")]
            pub type $mutable = *mut $name;

            #[doc = concat!("Like [`", stringify!($mutable), "`], for functions that only read, or borrowed from another object.")]
            pub type $constant = *const $name;
        )*
    };
}

/// Functions that the caller gives to the library.
macro_rules! callbacks {
    ($($name:ident($($parameters:tt)*);)*) => {
        $(
            /// A function of the caller; the library may refuse `None`.
            pub type $name = Option<unsafe extern "C" fn($($parameters)*) -> migraphx_status>;
        )*
    };
}

/// The table of functions, with one field for each.
macro_rules! functions {
    (
        required { $($symbol:literal $name:ident($($parameters:tt)*);)* }
        optional {
            $($late_symbol:literal since $since:literal $late_name:ident($($late_parameters:tt)*);)*
        }
    ) => {
        /// The functions of the C API, resolved from one loaded library.
        ///
        /// A field has the name of the C function without its prefix `migraphx_`. Those that some
        /// supported release lacks are an `Option`, each resolved by itself.
        ///
        /// Every function is unsafe to call: handles have to be alive and of the right kind, and the
        /// crate's documentation lists what else ends the process.
        #[derive(Clone, Copy)]
        pub struct Api {
            $(
                #[doc = concat!("`migraphx_", stringify!($name), "`")]
                pub $name: unsafe extern "C" fn($($parameters)*) -> migraphx_status,
            )*
            $(
                #[doc = concat!("`migraphx_", stringify!($late_name), "`, since ", $since)]
                pub $late_name:
                    Option<unsafe extern "C" fn($($late_parameters)*) -> migraphx_status>,
            )*
        }

        impl Api {
            /// The functions without which a library is too old.
            pub const REQUIRED: &'static [&'static CStr] = &[$($symbol),*];

            /// The functions that a library may lack, each with the release that brought it.
            pub const OPTIONAL: &'static [(&'static CStr, &'static str)] =
                &[$(($late_symbol, $since)),*];

            /// Fills the table with what `find` answers for each name of a C function.
            ///
            /// [`Library::open`](crate::Library::open) does this for a loaded library. Call it
            /// yourself for a library that is linked in another way, or for a double in a test.
            ///
            /// # Errors
            ///
            /// The names of all required functions for which `find` answers `None`.
            ///
            /// # Safety
            ///
            /// Each pointer that `find` returns has to be that of a function with the signature that
            /// `migraphx.h` gives that name, and the function has to stay loaded as long as the table
            /// or a copy of it is used.
            pub unsafe fn resolve(
                mut find: impl FnMut(&CStr) -> Option<NonNull<c_void>>,
            ) -> Result<Self, MissingFunctions> {
                let missing: MissingFunctions =
                    Self::REQUIRED.iter().copied().filter(|name| find(name).is_none()).collect();
                if !missing.is_empty() {
                    return Err(missing);
                }
                Ok(Self {
                    $(
                        $name: match find($symbol) {
                            // SAFETY: the caller vouches for the signature of this name.
                            Some(pointer) => unsafe { shapeyard_dylib::as_function(pointer) },
                            None => return Err(vec![$symbol]),
                        },
                    )*
                    $(
                        $late_name: match find($late_symbol) {
                            // SAFETY: the caller vouches for the signature of this name.
                            Some(pointer) => Some(unsafe { shapeyard_dylib::as_function(pointer) }),
                            None => None,
                        },
                    )*
                })
            }

            /// Every optional function with whether it is there.
            #[must_use]
            pub fn optional(&self) -> Vec<OptionalFunction> {
                vec![$(
                    OptionalFunction {
                        name: stringify!($late_name),
                        since: $since,
                        present: self.$late_name.is_some(),
                    },
                )*]
            }
        }
    };
}

/// Names of required functions that a library does not have.
pub type MissingFunctions = Vec<&'static CStr>;

/// A function that not every supported release has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionalFunction {
    /// Its field in [`Api`], which is its C name without the prefix `migraphx_`.
    pub name: &'static str,
    /// The release that brought it.
    pub since: &'static str,
    /// Whether this library has it.
    pub present: bool,
}

impl std::fmt::Debug for Api {
    /// Which optional functions are there; the required ones always are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let present = self.optional().into_iter().filter(|function| function.present);
        let names: Vec<&str> = present.map(|function| function.name).collect();
        f.debug_struct("Api").field("optional", &names).finish_non_exhaustive()
    }
}

impl migraphx_status {
    /// Whether the call did what it was asked for; only then are its outputs written.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }
}
