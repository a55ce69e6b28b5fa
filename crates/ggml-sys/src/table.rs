//! What the declarations are made of: opaque types, and one table of functions.

/// Types of which only the library knows what is in them.
macro_rules! opaque {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`, which only the library looks into.")]
            #[repr(C)]
            #[derive(Debug)]
            pub struct $name {
                opaque: [u8; 0],
                /// Neither `Send` nor `Sync` nor `Unpin` by itself.
                marker: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
            }
        )*
    };
}

/// The table of functions, with one field for each.
macro_rules! functions {
    ($($symbol:literal $name:ident($($parameters:tt)*) $(-> $result:ty)?;)*) => {
        /// ggml's functions, resolved from one loaded library.
        ///
        /// A field has the name of the C function; those of ggml itself lose the prefix `ggml_`.
        ///
        /// Every function is unsafe to call: pointers have to be alive and of the right kind, and
        /// shapes have to fit, since ggml answers what does not fit with the end of the process.
        #[derive(Clone, Copy)]
        pub struct Api {
            $(
                #[doc = concat!("`", $symbol, "`")]
                pub $name: unsafe extern "C" fn($($parameters)*) $(-> $result)?,
            )*
        }

        impl Api {
            /// The functions without which a library is too old.
            pub const FUNCTIONS: &'static [&'static str] = &[$($symbol),*];

            /// Fills the table with what `find` answers for each name of a C function.
            ///
            /// # Errors
            ///
            /// The names of all functions for which `find` answers `None`.
            ///
            /// # Safety
            ///
            /// Each pointer that `find` returns has to be that of a function with the signature that
            /// ggml's headers give that name, and the function has to stay loaded as long as the
            /// table or a copy of it is used.
            pub unsafe fn resolve(
                mut find: impl FnMut(&str) -> Option<NonNull<c_void>>,
            ) -> Result<Self, Vec<&'static str>> {
                let missing: Vec<&'static str> =
                    Self::FUNCTIONS.iter().copied().filter(|name| find(name).is_none()).collect();
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
                })
            }
        }
    };
}

impl std::fmt::Debug for crate::Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("functions", &Self::FUNCTIONS.len()).finish_non_exhaustive()
    }
}
