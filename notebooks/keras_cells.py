"""The side-by-side notebook: the tutorial's Keras code and its equivalent in Peewit."""

CELLS = [
    (
        """
# The tutorial in Keras and in Peewit, side by side

Each step first shows the tutorial's own Keras code, then the same in Peewit. Only the data loading
is shared. Install what this notebook needs with
`pip install 'peewit[notebooks,keras]' tensorflow-cpu`. The other notebook,
[tutorial.ipynb](tutorial.ipynb), goes further.
""",
    ),
    """
DATA = None  # path of a CIFAR-10 archive; by default, Peewit finds or downloads one
IMAGES = None  # use only this many images of each set, for a quick try
EPOCHS = 3  # the tutorial trains 10; three are enough to compare
""",
    (
        """
## The data

The tutorial's `datasets.cifar10.load_data()` downloads from a single server, which has become slow.
Peewit first looks where Keras stores the file, then tries several mirrors.
""",
    ),
    """
import peewit

SOURCE = {"source": "cifar10", "data": DATA}
train, test, notes = peewit.load(**SOURCE)
if IMAGES:
    train, test = train.take(range(IMAGES)), test.take(range(IMAGES))
print(train, test, *notes, sep="\\n")
""",
    ("Keras:",),
    """
import warnings

import matplotlib.pyplot as plt
import tensorflow as tf
from tensorflow.keras import layers, models

# newer versions of Keras warn about the tutorial's `input_shape` argument
warnings.filterwarnings("ignore", "Do not pass an `input_shape`")

train_images, test_images = train.images / 255.0, test.images / 255.0
train_labels, test_labels = train.labels[:, None], test.labels[:, None]

plt.figure(figsize=(8, 2.4))
for i in range(4):
    plt.subplot(1, 4, i + 1)
    plt.xticks([])
    plt.yticks([])
    plt.imshow(train_images[100 + i])
    plt.xlabel(train.class_names[train_labels[100 + i][0]])
plt.show()
""",
    ("Peewit:",),
    """
peewit.show(train, range(100, 104))
""",
    ("## The network\n\nKeras:",),
    """
model = models.Sequential()
model.add(layers.Conv2D(64, (3, 3), activation="relu", input_shape=(32, 32, 3)))
model.add(layers.BatchNormalization())
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(128, (3, 3), activation="relu"))
model.add(layers.BatchNormalization())
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(64, (3, 3), activation="relu"))
model.add(layers.BatchNormalization())
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Flatten())
model.add(layers.Dropout(0.5))
model.add(layers.Dense(32, activation="relu"))
model.add(layers.Dense(10))
model.summary()
""",
    ("Peewit:",),
    """
from peewit.models.registry import build
from peewit.models.summary import summarise

network = build("tutorial", train.image_shape, len(train.class_names), seed=0)
summarise(network, train.image_shape)
""",
    (
        """
## The training

Keras, validating on the test set as in the tutorial:
""",
    ),
    """
import time

model.compile(
    optimizer="adam",
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
began = time.perf_counter()
history = model.fit(
    train_images,
    train_labels,
    epochs=EPOCHS,
    validation_data=(test_images, test_labels),
    verbose=2,
)
keras_seconds = time.perf_counter() - began
""",
    (
        """
Peewit, configured to do the same (by default, it validates on held-out training images):
""",
    ),
    """
recipe = peewit.Recipe.preset("tutorial", epochs=EPOCHS, validate_on="test")
run = peewit.train(train, recipe, test=test, source=SOURCE)
""",
    ("## The curves\n\nKeras:",),
    """
plt.plot(history.history["accuracy"], label="accuracy")
plt.plot(history.history["val_accuracy"], label="val_accuracy")
plt.xlabel("Epoch")
plt.ylabel("Accuracy")
plt.legend(loc="lower right")
plt.show()
""",
    ("Peewit:",),
    """
run.picture("curves")
""",
    (
        """
## The result

Keras's time includes building the graph, a few seconds of the first epoch.
""",
    ),
    """
loss, accuracy = model.evaluate(test_images, test_labels, verbose=0)
peewit_seconds = sum(row["seconds"] for row in run.history)
print("         accuracy     loss  seconds an epoch")
print(f"Keras  {accuracy:10.2%} {loss:8.4f} {keras_seconds / EPOCHS:17.1f}")
print(
    f"Peewit {run.metrics['accuracy']:10.2%} {run.metrics['loss']:8.4f} "
    f"{peewit_seconds / EPOCHS:17.1f}"
)
""",
    (
        """
The two started from different random weights and saw the images in a different order, so their
accuracies differ by chance. The network and the computations are the same: Peewit imports the
trained Keras model and computes the same logits.

## From Keras to Peewit
""",
    ),
    """
import tempfile

from peewit.importing.keras import import_keras

model.save("tutorial.keras")
folder = tempfile.mkdtemp()  # a new folder, so that this cell can be run again
imported = import_keras("tutorial.keras", train.class_names, out=folder, source=SOURCE)
difference = abs(imported.logits(test.images) - model.predict(test_images, verbose=0)).max()
print(f"largest difference of {test.images.shape[0]:,} x 10 logits: {difference:.1e}")
""",
    (
        """
## From Peewit to Keras

In the other direction, Peewit exports its run as a Keras model. The `.keras` file includes the
preprocessing: it takes raw images and returns probabilities. The `.h5` file has only the network.
""",
    ),
    """
from peewit.export.job import export

exported = export(run, "keras")
for file, agreement in exported.files.items():
    print(f"{file.name}: {agreement}")
""",
]
