"""The tutorial: the code once, the text in English and in Chinese."""

CELLS = [
    (
        """
# The CIFAR-10 tutorial, and what it leaves open

Load, look, build, train, plot, test: the well-known Keras tutorial from beginning to end, in
Peewit, on a CPU. Then its open questions, answered with numbers. Then pictures of your own, and the
classifier taken elsewhere.

`pip install 'peewit[notebooks]'` installs what this notebook needs. All of it takes about a quarter
of an hour on two cores; with fewer `EPOCHS` and `minutes` it is done sooner.
""",
        """
# CIFAR-10 教程，以及它没有回答的问题

读取、查看、搭建、训练、画图、测试：用 Peewit 在 CPU 上把那篇广为人知的 Keras 教程从头到尾走一遍；
接着用数字回答它留下的问题；然后识别你自己的图片，并把分类器带到别处去用。

用 `pip install 'peewit[notebooks]'` 安装这个 notebook 所需的东西。在两个核心上全部运行完大约要一
刻钟；把 `EPOCHS` 和 `minutes` 改小，就会快一些。
""",
    ),
    """
DATA = None  # the path of a CIFAR-10 archive; without it, Peewit finds or downloads one
IMAGES = None  # take only so many of each set, to try everything out quickly
EPOCHS = 10  # as in the tutorial
BUDGET = {"minutes": 5}  # for doing better in the same time
PART = 10_000  # training images for the question about the test set: a fifth, to have it sooner
""",
    (
        """
## Load

Peewit looks where Keras and torchvision leave the archive, then tries several mirrors, and checks
what it got. What is worth knowing about it is in the notes.
""",
        """
## 读取数据

Peewit 先到 Keras 和 torchvision 存放压缩包的地方去找，找不到再依次尝试几个镜像，并检查拿到的文
件。需要留意的事情都写在提示（notes）里。
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
    (
        """
## Look

The tutorial's four pictures, training images 100 to 103, and two of each class:
""",
        """
## 看一看

教程里的四张图片，也就是训练集的第 100 到 103 张；然后每个类别各看两张：
""",
    ),
    """
peewit.show(train, range(100, 104))
""",
    """
peewit.show(train, classes=train.class_names, count=20)
""",
    (
        """
## Build

Three convolutions, each with batch normalisation and pooling; dropout; two dense layers. The same
159,018 parameters as in Keras, under the same names.
""",
        """
## 搭建网络

三个卷积层，各带批归一化和池化；随机失活（dropout）；两个全连接层。参数和 Keras 里一样是 159,018
个，各层的名字也一样。
""",
    ),
    """
from peewit.models import build
from peewit.models.summary import summarise

network = build("tutorial", train.image_shape, len(train.class_names), seed=0)
summary = summarise(network, train.image_shape)
summary
""",
    (
        """
## Train

As in the tutorial: Adam, batches of 32, ten epochs. One thing is different: a tenth of the training
images is held out to watch the training with. The test set waits until the end.
""",
        """
## 训练

和教程一样：Adam，每批 32 张，训练十轮。只有一点不同：从训练集里留出十分之一的图片，用来观察训练过
程。测试集要等到最后才用。
""",
    ),
    """
recipe = peewit.Recipe.preset("tutorial", epochs=EPOCHS)
run = peewit.train(train, recipe, test=test, source=SOURCE)
""",
    (
        """
## Plot

Everything is in the run's folder: weights, history, pictures, and `report.html`, which has all of
it on one page.
""",
        """
## 画图

一切都在这次训练的文件夹里：权重、每一轮的记录、图片，还有把这些汇总在一页上的 `report.html`。
""",
    ),
    """
run.picture("curves")
""",
    (
        """
Where the validation curve jumps, batch normalisation's moving statistics lag behind the weights;
the training curve never shows that.

## Test

Once, at the end. An accuracy on so many images is known only within an interval: compare it with
the 73.67 % that the tutorial's author got, and with what another seed gives you.
""",
        """
验证曲线跳动的地方，是批归一化的滑动统计量没有跟上权重的变化；训练曲线上看不到这一点。

## 测试

只在最后测试一次。图片数量有限，准确率只能确定到一个区间：可以和教程作者得到的 73.67 % 比一比，也
可以换一个种子再比一比。
""",
    ),
    """
peewit.evaluate(run.logits(test.images), test.labels, run.class_names)
""",
    (
        """
The wrong answers that it was surest of say more than the number does:
""",
        """
最有把握却答错的图片，比一个数字更能说明问题：
""",
    ),
    """
run.picture("mistakes")
""",
    (
        """
## Why are 512 parameters not trained?

Keras counts 512 of the 159,018 as "non-trainable" and says no more. They are batch
normalisation's: each channel has four values. Scale and shift are trained, by the gradient of the
loss like any weight. The moving mean and the moving variance are *measured*: in training they
follow the batches, and in prediction they stand in for them.
""",
        """
## 为什么有 512 个参数不参与训练？

在 159,018 个参数里，Keras 把 512 个算作“不可训练”（non-trainable），没有再作解释。它们属于批归一
化：每个通道有四个值。缩放和平移是训练出来的，和别的权重一样由损失的梯度来决定；滑动平均值和滑动方
差是**统计**出来的：训练时跟着每一批数据更新，预测时代替批次自己的统计量。
""",
    ),
    """
norms = [row for row in summary.rows if row.kind == "BatchNormalization"]
for row in norms:
    print(f"{row.name}: {row.parameters} parameters, {row.non_trainable} of them not trained")
print(" + ".join(str(row.non_trainable) for row in norms), "=", summary.non_trainable)
""",
    (
        """
Measured means: anybody can measure them again. What the first layer's moving mean says, and what
comes out of its convolution for a thousand training images:
""",
        """
既然是统计出来的，谁都可以再统计一遍。下面是第一层记下的滑动平均值，以及一千张训练图片经过它的卷积
之后的平均值：
""",
    ),
    """
import torch

stage = run.model().stages[0]
with torch.inference_mode():
    pixels = run.preprocessing.tensor(train.images[:1000])
    measured = stage.conv(pixels).relu().mean((0, 2, 3))
print("moving mean  ", *(f"{value:.3f}" for value in stage.norm.running_mean[:8]))
print("measured now ", *(f"{value:.3f}" for value in measured[:8]))
""",
    (
        """
`print(summary.explain())` says for every layer where each number comes from.

## Why not validate on the test set?

The tutorial watches the training with the test set (`validation_data=(test_images,
test_labels)`). Nothing is wrong with looking, but whoever then keeps the best epoch, or the best
of some settings, has chosen by luck with these images too, and the accuracy on them is no longer
what new images would give. How much is that luck worth? Train a network on a part of the images,
and keep its answers after every epoch:
""",
        """
`print(summary.explain())` 会说明每一层的每个数字是怎么来的。

## 为什么不用测试集来验证？

教程用测试集来观察训练（`validation_data=(test_images, test_labels)`）。看一看并没有错；可是谁要是
按它挑出最好的一轮，或者挑出最好的一组设置，就把在这些图片上的运气也一起挑了进去，它们上面的准确率
也就不再是新图片上会有的准确率。这份运气值多少？用一部分图片训练一个网络，把它每一轮之后的答案都留
下来：
""",
    ),
    """
import numpy as np

from peewit.training.progress import Silent

few = train.take(range(PART))
answers, folder = [], None
for epochs in range(1, EPOCHS + 1):
    recipe = peewit.Recipe.preset("tutorial", epochs=epochs)
    watched = peewit.train(few, recipe, resume=folder, progress=Silent())
    folder = watched.path
    answers.append(watched.logits(test.images).argmax(1) == test.labels)
right = np.array(answers)  # (epochs, test images): whether the answer was right
print("test accuracy after each epoch:", *(f"{share:.1%}" for share in right.mean(1)))
""",
    (
        """
Now choose the best epoch by some of the test images, and ask the others, which had no part in the
choice, how good it is. A thousand times, each time by other images:
""",
        """
现在只用一部分测试图片挑出最好的一轮，再让没有参与挑选的其余图片来判断它到底有多好。这样做一千次，
每次换一批图片：
""",
    ),
    """
random = np.random.default_rng(0)
print("chosen by   looks like   really is   luck")
for size in (len(test) // 100, len(test) // 10, len(test) // 2):
    looks, really = [], []
    for _ in range(1000):
        shuffled = right[:, random.permutation(len(test))]
        seen, fresh = shuffled[:, :size].mean(1), shuffled[:, size:].mean(1)
        best = seen.argmax()
        looks.append(seen[best])
        really.append(fresh[best])
    look, real = np.mean(looks), np.mean(really)
    print(f"{size:5,} images {look:10.2%} {real:11.2%} {100 * (look - real):+6.2f} points")
""",
    (
        """
With thousands of images the luck is hardly more than the noise of this little experiment, with few
it is large, and it cannot be bad luck on average: the fewer the images and the more there is to
choose from, the more a choice flatters itself. People try far more than ten things on a test set.
Images that are held out of the training set answer the same question and leave the test set
untouched: that is what the run above did, and what Peewit does unless told otherwise
(`validate_on="test"`).

## How to do better in the same time?

More epochs hardly help this network. The same minutes do more in another recipe: `fast` measures
this machine, picks the network that fits the time, and trains it with better augmentation and a
better optimiser. The minutes count everything.
""",
        """
图片有几千张时，这份运气几乎淹没在这个小实验的误差里；图片少的时候就很大；而且平均来说它不会是坏运
气：图片越少、可选的越多，挑出来的结果就越是高估自己。人们在测试集上试过的东西远不止十样。从训练集
里留出的图片同样能回答这个问题，又不必动用测试集：上面的训练就是这样做的，Peewit 一向如此，除非你
另有要求（`validate_on="test"`）。

## 同样的时间，怎样做得更好？

对这个网络来说，多训练几轮几乎没有用。同样几分钟，换一个配方就能做得更多：`fast` 先测一测这台机
器，选出适合这段时间的网络，再用更好的数据增强和更好的优化器来训练。分钟数包括一切。
""",
    ),
    """
better = peewit.train(train, peewit.Recipe.preset("fast", **BUDGET), test=test, source=SOURCE)
""",
    """
from peewit.comparison import readings

for one in (run, better):
    print(f"{one.recipe.name:8}  {one.metrics['accuracy']:.2%}")
print(*readings([run, better]))
""",
    (
        """
## Pictures of your own

Any size and any usual format; put yours into the folder. Here are a few test pictures, enlarged and
saved as JPEG:
""",
        """
## 识别自己的图片

尺寸不限，常见的格式都可以；把你的图片放进这个文件夹就行。这里先放几张测试图片，放大之后存成
JPEG：
""",
    ),
    """
from pathlib import Path

from PIL import Image

from peewit.prediction import find_pictures

Path("pictures").mkdir(exist_ok=True)
for number in range(4):
    name = test.class_names[test.labels[number]]
    Image.fromarray(test.images[number]).resize((320, 320)).save(f"pictures/{number}-{name}.jpg")

for answer in peewit.predict(better, find_pictures(["pictures"]), top=3):
    print(answer)
""",
    (
        """
## Take it elsewhere

The whole classifier as an ONNX file, preprocessing included: pictures in, probabilities out. Peewit
loads what it has written and compares the answers before it keeps the file.
""",
        """
## 带到别处去

把整个分类器写成一个 ONNX 文件，预处理也在里面：输入图片，输出概率。文件写好之后，Peewit 会把它读
回来，核对答案，一致才保留。
""",
    ),
    """
from peewit.export.job import export

exported = export(better, "onnx")
for file, agreement in exported.files.items():
    print(f"{file.name}: {agreement}")
print(*exported.notes)
""",
    (
        """
It works without Peewit, here in ONNX Runtime:
""",
        """
没有 Peewit 它也能用，比如在 ONNX Runtime 里：
""",
    ),
    """
import onnxruntime

session = onnxruntime.InferenceSession(file)
(probabilities,) = session.run(None, {session.get_inputs()[0].name: test.images[:4]})
for row, label in zip(probabilities, test.labels, strict=False):
    names = test.class_names
    print(f"{names[label]}: taken for {names[row.argmax()]} ({row.max():.1%})")
""",
    (
        """
From here on in a terminal: `peewit report RUN` makes the page anew, `peewit serve RUN` opens one to
drop pictures on, `peewit compare RUN RUN` sets runs side by side, and `peewit train --help` lists
everything that can be changed.
""",
        """
接下来可以到终端里去：`peewit report RUN` 重新生成报告，`peewit serve RUN` 打开一个可以把图片拖进
去的网页， `peewit compare RUN RUN` 把几次训练放在一起比较，`peewit train --help` 列出所有可以更改
的东西。
""",
    ),
]
