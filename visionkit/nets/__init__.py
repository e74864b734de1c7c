"""Keras networks, one file per family: `visionkit.nets.siamfc()` is the Keras model itself.

Imported whole, as a network's file and its function share a name: were the functions looked up when touched, the import
of a file would put the module in their place. Importing Keras is the cost, and whoever wants a network pays it anyway.
"""

from visionkit.nets.alexnet import alexnet, alexnet_2012
from visionkit.nets.convolutionize import equals_crops, fully_convolutional, window_grid
from visionkit.nets.deeplab import (
    deeplabv3_mobilenet_v3_large,
    deeplabv3_resnet50,
    deeplabv3_resnet101,
    fcn_resnet50,
    fcn_resnet101,
)
from visionkit.nets.fast_rcnn_vgg import fast_rcnn_vgg16, fasterrcnn_vgg16
from visionkit.nets.fasterrcnn import (
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from visionkit.nets.fcn import fcn
from visionkit.nets.fcn_vgg import fcn8s_vgg16, fcn16s_vgg16, fcn32s_vgg16
from visionkit.nets.googlenet import googlenet
from visionkit.nets.inception_v3 import inception_v3
from visionkit.nets.lenet import lenet5
from visionkit.nets.lraspp import lraspp_mobilenet_v3_large
from visionkit.nets.maskrcnn import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from visionkit.nets.mobilenet_v2 import mobilenet_v2
from visionkit.nets.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from visionkit.nets.rcnn import RCNNParts, rcnn_parts
from visionkit.nets.resnet import resnet, resnet18, resnet34, resnet50, resnet101, resnet152
from visionkit.nets.siambox import siambox, siambox_exemplar, siambox_search
from visionkit.nets.siamfc import siamfc, siamfc_branch, siamfc_exemplar, siamfc_search
from visionkit.nets.spatial_transformer import st_cnn, st_fcn, stn_classifier, with_transformer
from visionkit.nets.ssdlite import ssdlite, ssdlite320_mobilenet_v3_large
from visionkit.nets.unet import unet
from visionkit.nets.vgg import vgg16, vgg19

__all__ = [
    "RCNNParts",
    "alexnet",
    "alexnet_2012",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "equals_crops",
    "fast_rcnn_vgg16",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_vgg16",
    "fcn",
    "fcn8s_vgg16",
    "fcn16s_vgg16",
    "fcn32s_vgg16",
    "fcn_resnet50",
    "fcn_resnet101",
    "fully_convolutional",
    "googlenet",
    "inception_v3",
    "lenet5",
    "lraspp_mobilenet_v3_large",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "rcnn_parts",
    "resnet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "siambox",
    "siambox_exemplar",
    "siambox_search",
    "siamfc",
    "siamfc_branch",
    "siamfc_exemplar",
    "siamfc_search",
    "ssdlite",
    "ssdlite320_mobilenet_v3_large",
    "st_cnn",
    "st_fcn",
    "stn_classifier",
    "unet",
    "vgg16",
    "vgg19",
    "window_grid",
    "with_transformer",
]
