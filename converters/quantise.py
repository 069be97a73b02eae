"""A loaded model becomes a .tflite file. Worker only."""

from collections.abc import Iterator

import tensorflow as tf

from converters.dialogue import Rows
from converters.loading import Source
from converters.steps import Quantise

_INT16X8 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8


def quantise(source: Source, step: Quantise, calibration: Rows) -> bytes:
    """TFLite bytes for one row at a time (fixed shapes, as the Edge TPU and TFLite Micro need).

    Args:
        source: the model.
        step: the precision wanted.
        calibration: model inputs (n, *shape) from which integers take their ranges.
    """
    traced = source.traced(calibration.shape[1:])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], source.keep)
    if step.precision == "float32":
        return bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if step.precision == "dynamic-range":
        # dense layers with a scale for each channel need a newer op than tflite-runtime 2.14 has
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        return bytes(converter.convert())
    if step.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())

    def rows() -> Iterator[list[Rows]]:
        for i in range(len(calibration)):
            yield [calibration[i : i + 1]]

    wide = step.precision == "int16x8"
    if not source.ranges:  # those of training would be overruled
        converter.representative_dataset = rows
        ops = _INT16X8 if wide else tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.target_spec.supported_ops = [ops]
    if step.io == "integer":
        converter.inference_input_type = tf.int16 if wide else tf.int8
        converter.inference_output_type = tf.int16 if wide else tf.int8
    return bytes(converter.convert())
