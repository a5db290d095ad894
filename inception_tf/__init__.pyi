from .conversion import convert as convert
from .conversion import load as load
from .deviations import DEVIATIONS as DEVIATIONS
from .endpoints import feature_extractor as feature_extractor
from .endpoints import slim_names as slim_names
from .inception_resnet_v1 import InceptionResNetV1 as InceptionResNetV1
from .inception_resnet_v1 import InceptionResNetV1Facenet as InceptionResNetV1Facenet
from .inception_resnet_v2 import InceptionResNetV2 as InceptionResNetV2
from .inception_resnet_v2 import InceptionResNetV2Slim as InceptionResNetV2Slim
from .inception_v3 import InceptionV3 as InceptionV3
from .inception_v4 import InceptionV4 as InceptionV4
from .inputs import check_images as check_images
from .inputs import preprocess_input as preprocess_input
from .labels import decode_predictions as decode_predictions
from .networks import NETWORKS as NETWORKS
from .networks import multiply_adds as multiply_adds
from .saliency import grad_cam as grad_cam
from .weights.releases import RELEASES as RELEASES

__version__: str
