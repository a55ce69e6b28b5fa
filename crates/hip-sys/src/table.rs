//! What the table of functions is made of.

use std::ffi::CStr;

/// The table of functions that both platforms have with the same signature.
///
/// A row is the field's name, HIP's symbol, CUDA's symbol and HIP's parameters. Each function is a
/// field of `Api`, to be called as it is, and a method of `Hip`, which makes an error of its answer.
macro_rules! functions {
    (
        required { $($name:ident $hip:literal $cuda:literal ($($parameter:ident: $type:ty),*);)* }
        optional { $($late:ident $late_hip:literal $late_cuda:literal ($($late_parameter:ident: $late_type:ty),*);)* }
        plain { $($plain:ident $plain_hip:literal $plain_cuda:literal ($($plain_parameter:ident: $plain_type:ty),*) -> $answer:ty;)* }
    ) => {
        /// The runtime's functions under HIP's names and with HIP's signatures, on either platform.
        ///
        /// A field is the C function without its prefix `hip`; on NVIDIA's platform it is the function
        /// of CUDA with the same meaning and the same binary interface. Those that differ are methods
        /// of [`Hip`](crate::Hip). Every function is unsafe to call: handles have to be alive, and
        /// addresses valid until the runtime has done what it was asked for.
        #[derive(Clone, Copy)]
        pub struct Api {
            $(
                #[doc = concat!("`", $hip, "`; CUDA's `", $cuda, "`.")]
                pub $name: unsafe extern "C" fn($($parameter: $type),*) -> crate::Status,
            )*
            $(
                #[doc = concat!("`", $late_hip, "`, which HIP 5 lacks or a build may leave out; CUDA's `", $late_cuda, "`.")]
                pub $late: Option<unsafe extern "C" fn($($late_parameter: $late_type),*) -> crate::Status>,
            )*
            $(
                #[doc = concat!("`", $plain_hip, "`; CUDA's `", $plain_cuda, "`.")]
                pub $plain: unsafe extern "C" fn($($plain_parameter: $plain_type),*) -> $answer,
            )*
        }

        impl Api {
            /// The symbols that a runtime has to have: HIP's name and CUDA's.
            pub(crate) const REQUIRED: &'static [(&'static str, &'static str)] =
                &[$(($hip, $cuda),)* $(($plain_hip, $plain_cuda)),*];

            /// Fills the table with what `find` answers for a pair of names; the missing HIP names
            /// when a required one is not there.
            ///
            /// # Safety
            ///
            /// What `find` returns has to be the function of that name, loaded as long as the table
            /// or a copy of it is used.
            pub(crate) unsafe fn resolve(
                find: impl Fn(&str, &str) -> Option<std::ptr::NonNull<std::ffi::c_void>>,
            ) -> Result<Self, Vec<&'static str>> {
                let missing: Vec<&'static str> = Self::REQUIRED
                    .iter()
                    .filter(|(hip, cuda)| find(hip, cuda).is_none())
                    .map(|(hip, _)| *hip)
                    .collect();
                if !missing.is_empty() {
                    return Err(missing);
                }
                Ok(Self {
                    $(
                        $name: match find($hip, $cuda) {
                            // SAFETY: the caller vouches for the function behind the name; the
                            // signature is HIP's, compared with the headers of both platforms.
                            Some(address) => unsafe { shapeyard_dylib::as_function(address) },
                            None => return Err(vec![$hip]),
                        },
                    )*
                    $(
                        $late: match find($late_hip, $late_cuda) {
                            // SAFETY: as above.
                            Some(address) => Some(unsafe { shapeyard_dylib::as_function(address) }),
                            None => None,
                        },
                    )*
                    $(
                        $plain: match find($plain_hip, $plain_cuda) {
                            // SAFETY: as above.
                            Some(address) => unsafe { shapeyard_dylib::as_function(address) },
                            None => return Err(vec![$plain_hip]),
                        },
                    )*
                })
            }
        }

        impl crate::Hip {
            $(
                #[doc = concat!("`", $hip, "`, its answer made an error.")]
                ///
                /// # Errors
                ///
                /// What the runtime answers, with its own words for it.
                ///
                /// # Safety
                ///
                /// As for the C function: handles are alive, and addresses are valid until the runtime
                /// has done what it was asked for.
                #[allow(clippy::too_many_arguments, reason = "as many as the C function has")]
                pub unsafe fn $name(&self, $($parameter: $type),*) -> Result<(), crate::HipError> {
                    // SAFETY: the caller keeps what the C function asks for.
                    let status = unsafe { (self.api.$name)($($parameter),*) };
                    self.check($hip, status)
                }
            )*
        }
    };
}

/// The text at a pointer that the runtime answered, which is static or null.
///
/// # Safety
///
/// The pointer has to be null or that of a C string that lives during the call.
pub(crate) unsafe fn text_at(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the string.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
