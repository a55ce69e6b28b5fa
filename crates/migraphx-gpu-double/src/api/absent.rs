//! Functions that a library has to have and that no test calls.

use super::Status;
use crate::error::Error;

/// Defines functions that fail. Their parameters are not looked at, so they are not declared: a caller in
/// C cleans up what it passed.
macro_rules! absent {
    ($($name:ident,)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> Status {
                super::answer(stringify!($name), || Err(Error::failed("the double does not do this")))
            }
        )*
    };
}

absent! {
    migraphx_optimals_destroy,
    migraphx_optimals_assign_to,
    migraphx_optimals_create,
    migraphx_dynamic_dimension_destroy,
    migraphx_dynamic_dimension_assign_to,
    migraphx_dynamic_dimension_create_min_max,
    migraphx_dynamic_dimension_create_min_max_optimals,
    migraphx_dynamic_dimension_is_fixed,
    migraphx_dynamic_dimension_equal,
    migraphx_dynamic_dimensions_destroy,
    migraphx_dynamic_dimensions_assign_to,
    migraphx_dynamic_dimensions_create,
    migraphx_dynamic_dimensions_size,
    migraphx_dynamic_dimensions_get,
    migraphx_shape_create_dynamic,
    migraphx_shape_dyn_dims,
    migraphx_shape_index,
    migraphx_argument_assign_to,
    migraphx_argument_equal,
    migraphx_argument_generate,
    migraphx_target_assign_to,
    migraphx_program_parameter_shapes_assign_to,
    migraphx_program_parameters_assign_to,
    migraphx_arguments_assign_to,
    migraphx_shapes_assign_to,
    migraphx_instruction_destroy,
    migraphx_instruction_assign_to,
    migraphx_instructions_destroy,
    migraphx_instructions_assign_to,
    migraphx_instructions_create,
    migraphx_modules_destroy,
    migraphx_modules_assign_to,
    migraphx_modules_create,
    migraphx_module_create,
    migraphx_module_print,
    migraphx_module_add_instruction,
    migraphx_module_add_instruction_with_mod_args,
    migraphx_module_add_literal,
    migraphx_module_add_parameter,
    migraphx_module_add_return,
    migraphx_module_add_allocation,
    migraphx_program_assign_to,
    migraphx_program_get_main_module,
    migraphx_program_create_module,
    migraphx_program_print,
    migraphx_program_equal,
    migraphx_operation_destroy,
    migraphx_operation_assign_to,
    migraphx_operation_create,
    migraphx_operation_name,
    migraphx_onnx_options_assign_to,
    migraphx_onnx_options_set_dyn_input_parameter_shape,
    migraphx_onnx_options_set_default_dyn_dim_value,
    migraphx_file_options_assign_to,
    migraphx_compile_options_assign_to,
    migraphx_tf_options_destroy,
    migraphx_tf_options_assign_to,
    migraphx_tf_options_create,
    migraphx_tf_options_set_nhwc,
    migraphx_tf_options_set_input_parameter_shape,
    migraphx_tf_options_set_default_dim_value,
    migraphx_tf_options_set_output_names,
    migraphx_parse_tf,
    migraphx_quantize_op_names_destroy,
    migraphx_quantize_op_names_assign_to,
    migraphx_quantize_op_names_create,
    migraphx_quantize_op_names_add,
    migraphx_quantize_fp16_with_op_names,
    migraphx_quantize_fp16,
    migraphx_quantize_int8_options_destroy,
    migraphx_quantize_int8_options_assign_to,
    migraphx_quantize_int8_options_create,
    migraphx_quantize_int8_options_add_op_name,
    migraphx_quantize_int8_options_add_calibration_data,
    migraphx_quantize_int8,
    migraphx_experimental_custom_op_destroy,
    migraphx_experimental_custom_op_assign_to,
    migraphx_experimental_custom_op_create,
    migraphx_experimental_custom_op_set_compute,
    migraphx_experimental_custom_op_set_compute_shape,
    migraphx_experimental_custom_op_set_output_alias,
    migraphx_experimental_custom_op_set_runs_on_offload_target,
    migraphx_experimental_custom_op_register,
}
