// The camera dialog. The camera is on only while the dialog is open.

import { text } from "./strings.js";

export function setUp(onPicture) {
  const dialog = document.getElementById("camera");
  const video = document.getElementById("video");
  const problem = document.getElementById("camera-problem");
  const takeButton = document.getElementById("camera-take");

  async function open() {
    problem.textContent = "";
    takeButton.disabled = true;
    dialog.showModal();
    if (!navigator.mediaDevices) {
      problem.textContent = text("camera-insecure");
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      if (!dialog.open) {
        stream.getTracks().forEach((track) => track.stop());
        return;
      }
      video.srcObject = stream;
      await video.play();
      takeButton.disabled = false;
    } catch {
      problem.textContent = text("camera-none");
    }
  }

  function stop() {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }

  function take() {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => {
      if (blob) onPicture(new File([blob], `${text("camera-name")}.png`, { type: "image/png" }));
    }, "image/png");
  }

  document.getElementById("camera-open").addEventListener("click", open);
  document.getElementById("camera-close").addEventListener("click", () => dialog.close());
  takeButton.addEventListener("click", take);
  dialog.addEventListener("close", stop);
}
