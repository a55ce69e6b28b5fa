//! Devices: HIP's side of running programs on a GPU. What a lane does with it is in
//! [`lane::DeviceLane`](crate::lane::DeviceLane).

#![allow(unsafe_code, reason = "addresses of a device that is given work")]

mod buffers;
mod gpu;
mod memory;
mod parameters;
mod spread;
mod staging;
mod tensor;

pub(crate) use buffers::{Buffers, Layouts};
pub(crate) use gpu::{Gpu, enter};
pub(crate) use memory::{Account, GiveUp, Kept, Patience};
pub(crate) use parameters::Parameters;
pub(crate) use staging::{Staging, Target};
pub use tensor::{DeviceTensor, DeviceTensorError};
