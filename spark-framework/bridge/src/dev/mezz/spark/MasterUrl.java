package dev.mezz.spark;

import java.util.ArrayList;
import java.util.List;

/** Master URLs: {@code spark-mezz://host:port[,host:port...]}. */
final class MasterUrl {
  private static final String SCHEME = "spark-mezz://";

  private MasterUrl() {}

  /** Whether the URL is one of ours, well formed or not. */
  static boolean matches(String url) {
    return url.startsWith(SCHEME);
  }

  /**
   * The masters, each as host:port.
   *
   * @throws IllegalArgumentException if the URL is malformed
   */
  static List<String> parse(String url) {
    List<String> masters = new ArrayList<>();
    for (String master : url.substring(SCHEME.length()).split(",", -1)) {
      if (!isAddress(master.trim())) {
        throw new IllegalArgumentException(
            "Master URL '" + url + "': '" + master + "' is not host:port; write "
                + SCHEME + "host:port[,host:port...]");
      }
      masters.add(master.trim());
    }
    return masters;
  }

  private static boolean isAddress(String text) {
    int colon = text.lastIndexOf(':');
    if (colon < 1) {
      return false;
    }
    try {
      int port = Integer.parseInt(text.substring(colon + 1));
      return port > 0 && port < 65536;
    } catch (NumberFormatException e) {
      return false;
    }
  }
}
